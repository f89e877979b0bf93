//! Answers HTTP requests, in a thread of its own: however many clients there are, and however slow, the tracer makes one copy of
//! its numbers a second for all of them, and waits for none.
//!
//! hyper speaks the protocol: it is the one that everything else in Rust rests on, it runs on the tokio that is here already, and it
//! ends slow clients by itself.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::output::json_text;

use super::metrics::{Snapshot, classic, open_metrics};
use super::status::add;
use super::{Status, Trigger, Why, privilege};

/// Clients at once; further ones are turned away.
const CLIENTS: usize = 64;
/// How long a client may take to say what it wants, and for all of it.
const HEADERS: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(15);
/// How long a page is as good as new.
const FRESH: Duration = Duration::from_secs(1);
/// How long the tracer and the keeper may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The tracer turns once a second: after this long it is not well.
const STUCK: u64 = 10;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Somebody wants the numbers.
pub(super) type Wanted = oneshot::Sender<Snapshot>;

/// What requests are answered from.
pub(super) struct Desk {
    /// To the tracer.
    pub(super) wanted: mpsc::Sender<Wanted>,
    /// To the keeper.
    pub(super) trigger: Sender<Trigger>,
    pub(super) status: Arc<Status>,
}

/// Takes an address, before anything that takes time.
///
/// # Errors
/// When it cannot be had.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Begins to answer. The thread ends with the process.
pub(super) fn serve(listener: TcpListener, desk: Desk) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        // Foreign bytes come in here: whatever they did, this thread may not do.
        privilege::give_up_all();
        behind_the_tracer();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| runtime.block_on(answer_all(listener, desk)));
        if let Err(error) = served {
            log::error!("no metrics any more: {error}");
        }
    })
}

/// Has the kernel prefer the tracer's thread to this one.
fn behind_the_tracer() {
    // SAFETY: setpriority(2) with three numbers, of which 0 means this thread; it touches no memory.
    let failed = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) } != 0;
    if failed {
        log::debug!("requests are answered with the tracer's priority: {}", io::Error::last_os_error());
    }
}

async fn answer_all(listener: TcpListener, desk: Desk) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let office = Arc::new(Office { desk, page: Mutex::new(None) });
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Of one client; or for want of something, which does not come back by asking at once.
                log::debug!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&clients).try_acquire_owned() else {
            add(&office.desk.status.clients_refused, 1);
            continue;
        };
        let office = Arc::clone(&office);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let office = Arc::clone(&office);
                async move { Ok::<_, Infallible>(office.answer(&request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .keep_alive(false)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), answer);
            // What a client does wrong is its own affair.
            let _over = timeout(WHOLE, served).await;
            drop(permit);
        });
    }
}

struct Office {
    desk: Desk,
    /// The last page and its older form, and when it was made. Who waits for it waits with all others.
    page: Mutex<Option<(Instant, Bytes, Bytes)>>,
}

type Answer = Response<Full<Bytes>>;

impl Office {
    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.uri().path(), reading) {
            ("/metrics", true) => {
                let wants = request.headers().get_all(ACCEPT).iter();
                let open =
                    wants.filter_map(|value| value.to_str().ok()).any(|value| value.contains("openmetrics"));
                self.metrics(open).await
            }
            ("/health", true) => self.health(),
            ("/ready", true) => self.ready(),
            ("/", true) => text(
                StatusCode::OK,
                "tcptrace agent: /metrics, /health, /ready; POST /snapshot keeps the minutes around now\n",
            ),
            ("/snapshot", _) if request.method() == Method::POST => {
                // A page in somebody's browser must not fill the disk.
                if request.headers().contains_key(ORIGIN) {
                    return text(StatusCode::FORBIDDEN, "not from a web page\n");
                }
                self.snapshot().await
            }
            ("/snapshot", _) => allowed("POST"),
            ("/metrics" | "/health" | "/ready" | "/", false) => allowed("GET, HEAD"),
            _ => text(StatusCode::NOT_FOUND, "there is /metrics, /health, /ready, and POST /snapshot\n"),
        }
    }

    async fn metrics(&self, open: bool) -> Answer {
        let mut page = self.page.lock().await;
        if page.as_ref().is_none_or(|(made, ..)| made.elapsed() >= FRESH) {
            let (answer, answered) = oneshot::channel();
            let asked = self.desk.wanted.try_send(answer).is_ok();
            match timeout(PATIENCE, answered).await {
                Ok(Ok(snapshot)) if asked => {
                    let text = open_metrics(snapshot, &self.desk.status);
                    let older = classic(&text);
                    *page = Some((Instant::now(), text.into(), older.into()));
                }
                _ => return text(StatusCode::SERVICE_UNAVAILABLE, "the tracer does not answer\n"),
            }
        }
        match page.as_ref() {
            Some((_, text, _)) if open => full(StatusCode::OK, OPEN_METRICS, text.clone()),
            Some((_, _, older)) => full(StatusCode::OK, CLASSIC, older.clone()),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "there are no numbers yet\n"),
        }
    }

    fn health(&self) -> Answer {
        match self.desk.status.since_turn() {
            ago if ago <= STUCK => text(StatusCode::OK, "the tracer runs\n"),
            ago => {
                let words = format!("the tracer has not turned for {ago} s\n");
                text(StatusCode::SERVICE_UNAVAILABLE, &words)
            }
        }
    }

    fn ready(&self) -> Answer {
        if self.desk.status.is_failing() {
            let words = "events are traced and not recorded: the disk does not take them\n";
            return text(StatusCode::SERVICE_UNAVAILABLE, words);
        }
        match self.desk.status.since_turn() {
            ago if ago <= STUCK => text(StatusCode::OK, "events are traced and recorded\n"),
            _ => self.health(),
        }
    }

    async fn snapshot(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        let trigger = Trigger { time: self.desk.status.now(), why: Why::Request, answer: Some(answer) };
        if self.desk.trigger.send(trigger).is_err() {
            return text(StatusCode::SERVICE_UNAVAILABLE, "nothing is recorded any more\n");
        }
        match timeout(PATIENCE, answered).await {
            Ok(Ok(Ok(kept))) => full(StatusCode::ACCEPTED, JSON, format!("{}\n", json_text(&kept)).into()),
            Ok(Ok(Err(why))) => {
                text(StatusCode::INSUFFICIENT_STORAGE, &format!("it cannot be kept: {why}\n"))
            }
            _ => text(StatusCode::SERVICE_UNAVAILABLE, "the disk is slow; it is kept when that answers\n"),
        }
    }
}

fn allowed(methods: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {methods}\n"));
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn text(status: StatusCode, words: &str) -> Answer {
    full(status, TEXT, Bytes::copy_from_slice(words.as_bytes()))
}

fn full(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
