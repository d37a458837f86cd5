//! Neural-network operations for Candle, with hand-written gradients
