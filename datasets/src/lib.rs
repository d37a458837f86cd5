//! Image data sets: read, verify, download, split, augment
