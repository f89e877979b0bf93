//! What the kernel shows without probes: sysctls, sock_diag, procfs, counters.
