//! Published numbers, and tables out of results
