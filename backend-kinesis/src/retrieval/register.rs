//! Registering for enhanced fan-out.
