//! Who a process is: command line, container or unit, network namespace. Survives the process's exit.
