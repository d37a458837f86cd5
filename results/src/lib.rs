//! One typed row per outcome, stored and queried with polars
