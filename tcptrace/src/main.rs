//! The `tcptrace` binary: everything is in the library.

fn main() {
    env_logger::init();
    let mut options = tcptrace::probe::Options::default();
    options.tier = match std::env::args().nth(1).as_deref() {
        Some("fexit") => tcptrace::probe::Tier::Only(tcptrace::probe::BackEnd::Fexit),
        Some("kprobe") => tcptrace::probe::Tier::Only(tcptrace::probe::BackEnd::Kprobe),
        Some("tracepoint") => tcptrace::probe::Tier::Only(tcptrace::probe::BackEnd::Tracepoint),
        _ => tcptrace::probe::Tier::Auto,
    };
    match tcptrace::probe::Tracer::start(&options) {
        Ok(t) => {
            for o in &t.coverage().observations {
                println!("{o:?}");
            }
        }
        Err(e) => println!("{e}"),
    }
}
