//! Thin entry points, one file for each attachment type: they decode arguments and call a handler. Which of them are
//! attached is decided in user space, by trying.

mod cgroup;
mod drop_all;
mod fexit;
mod iterator;
mod kprobe;
mod tracepoint;
