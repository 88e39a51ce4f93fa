"""The codec, which encodes events, values, journal entries and snapshots as bytes, and back."""
