"""The codec: events, state values, journal entries and snapshots to and from bytes."""
