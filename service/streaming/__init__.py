"""WebSocket streams: handshake, frames in, results out."""
