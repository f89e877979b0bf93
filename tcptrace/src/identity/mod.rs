//! Who a process is: command line, container or unit, network namespace. Survives the process's exit.

pub mod cache;
pub mod cgroup;
pub mod cgroup_programs;
pub mod cgroup_tree;
pub mod invoker;
mod pods;
pub mod process;
pub mod sockets;
pub mod state;
