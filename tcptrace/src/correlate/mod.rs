//! State machines over events. Pure: no clock, no I/O, no globals; the time is the event's.
