//! Makes the incidents of the scenario catalogue in private network namespaces, with real sockets and processes.
