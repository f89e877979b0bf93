//! Arguments, and one file per subcommand; nothing else.
