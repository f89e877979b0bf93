use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::incidents::Incidents;
use super::ring::{Ring, run_of, run_path};
use super::trigger::Why;
use super::*;
use crate::event::{Event, Kind, Timestamp};
use crate::record::{Custodian, Metadata, part_path};

fn retention() -> Retention {
    Retention {
        ring_bytes: 1 << 20,
        ring_age: Duration::from_secs(3600),
        incident_bytes: 1 << 20,
        before: Duration::from_secs(60),
        after: Duration::from_secs(60),
        part: Duration::from_secs(60),
    }
}

fn part(directory: &Path, run: u64, number: u32, bytes: usize) -> PathBuf {
    let path = part_path(&run_path(directory, run), number);
    fs::write(&path, vec![7; bytes]).unwrap();
    path
}

fn age(path: &Path, seconds: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_900_000_000_000_000_000 + seconds * 1_000_000_000)
}

#[test]
fn parts_are_ordered_by_run_and_number_whatever_the_clock_said() {
    let directory = tempfile::tempdir().unwrap();
    let (second, first) = (part(directory.path(), 10, 1, 1), part(directory.path(), 9, 12, 1));
    // The clock went back between the two runs.
    age(&second, 9_000);
    age(&first, 10);
    let ring = Ring::adopt(directory.path().to_owned()).unwrap();
    assert_eq!(ring.paths().collect::<Vec<_>>(), [&first, &second]);
    assert_eq!((ring.last_run(), run_of(&first)), (10, Some(9)));
}

#[test]
fn what_is_no_part_is_left_alone_and_what_was_never_begun_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["notes.txt", "run-x.000001.arrows", "other.arrows"] {
        fs::write(directory.path().join(name), "mine").unwrap();
    }
    let empty = part(directory.path(), 1, 1, 0);
    let gathering = directory.path().join(".run-000001.000002.arrows.gathering");
    fs::write(&gathering, "half").unwrap();
    let mut ring = Ring::adopt(directory.path().to_owned()).unwrap();
    assert_eq!(ring.len(), 0);
    assert!(!empty.exists() && !gathering.exists());
    assert_eq!(ring.make_room(0, Duration::ZERO, 0), 0);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn the_oldest_parts_go_first_for_the_size_and_for_the_age() {
    let directory = tempfile::tempdir().unwrap();
    let parts: Vec<PathBuf> = (1..=5).map(|number| part(directory.path(), 1, number, 100)).collect();
    age(&parts[0], 500);
    let mut ring = Ring::adopt(directory.path().to_owned()).unwrap();
    assert_eq!(ring.make_room(1000, Duration::from_secs(400), 0), 1);
    assert!(!parts[0].exists() && parts[1].exists());
    // 400 bytes, and 150 that are being written.
    assert_eq!(ring.make_room(400, Duration::from_secs(400), 150), 2);
    assert_eq!(ring.paths().collect::<Vec<_>>(), [&parts[3], &parts[4]]);
    assert_eq!(ring.bytes(), 200);
}

#[test]
fn a_clock_that_is_ahead_later_deletes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let old = part(directory.path(), 1, 1, 10);
    let mut ring = Ring::adopt(directory.path().to_owned()).unwrap();
    // As if the wall clock had been set a year on: the file looks a year old.
    age(&old, 365 * 86_400);
    ring.read_again(None).unwrap();
    assert_eq!(ring.make_room(1000, Duration::from_secs(3600), 0), 0);
    assert!(old.exists());
}

#[test]
fn an_incident_outlives_the_ring_and_takes_no_second_place_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (ring_at, incidents_at) = (directory.path().join("ring"), directory.path().join("incidents"));
    fs::create_dir_all(&ring_at).unwrap();
    fs::create_dir_all(&incidents_at).unwrap();
    let old = part(&ring_at, 1, 1, 100);
    let current = part(&ring_at, 1, 2, 50);
    age(&old, 30);
    let mut ring = Ring::adopt(ring_at.clone()).unwrap();
    let mut incidents = Incidents::adopt(incidents_at, &retention(), at(0), &ring).unwrap();
    let parts = ring.ended_within(Duration::from_secs(60));
    let kept = incidents.keep(at(100), Why::Signal, &retention(), parts).unwrap();
    let kept_in = PathBuf::from(&kept.directory);
    assert!(!kept.joined && kept.directory.ends_with("-signal"), "{kept:?}");
    let there = kept_in.join(old.file_name().unwrap());
    assert_eq!(fs::metadata(&there).unwrap().ino(), fs::metadata(&old).unwrap().ino());
    assert_eq!(incidents.bytes(), 150);
    ring.make_room(0, Duration::ZERO, 0);
    assert!(!old.exists());
    assert_eq!(fs::read(&there).unwrap().len(), 100);
    // The part that is being written gets its last form when it ends: here a smaller one under the same name.
    assert!(!current.exists());
    part(&ring_at, 1, 2, 20);
    incidents.ended(&current).unwrap();
    assert_eq!(fs::read(kept_in.join(current.file_name().unwrap())).unwrap().len(), 20);
    let leftovers = fs::read_dir(&kept_in)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn what_comes_while_an_incident_goes_on_joins_it_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let ring = Ring::adopt(directory.path().to_owned()).unwrap();
    let mut incidents = Incidents::adopt(directory.path().to_owned(), &retention(), at(0), &ring).unwrap();
    let first = incidents.keep(at(0), Why::Signal, &retention(), std::iter::empty()).unwrap();
    for second in 1..=120 {
        let kept = incidents.keep(at(second), Why::Request, &retention(), std::iter::empty()).unwrap();
        assert!(kept.joined && kept.directory == first.directory);
    }
    let about = fs::read(Path::new(&first.directory).join("incident.json")).unwrap();
    let about: Incident = serde_json::from_slice(&about).unwrap();
    assert_eq!((about.reasons.len(), about.more_reasons), (100, 21));
    assert_eq!((about.closed, about.time, about.until), (false, at(0), at(180)));
}

#[test]
fn the_oldest_incidents_are_deleted_for_the_bound_and_never_the_one_that_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let ring_at = directory.path().join("ring");
    let incidents_at = directory.path().join("incidents");
    fs::create_dir_all(&ring_at).unwrap();
    fs::create_dir_all(&incidents_at).unwrap();
    // Ends at once with the first part that ends.
    let short = Retention { after: Duration::ZERO, ..retention() };
    let ring = Ring::adopt(ring_at.clone()).unwrap();
    let mut incidents = Incidents::adopt(incidents_at.clone(), &short, at(0), &ring).unwrap();
    let mut kept = Vec::new();
    for number in 1..=3 {
        let path = part(&ring_at, 1, number, 100);
        kept.push(incidents.keep(at(0), Why::Signal, &short, std::iter::once(path.as_path())).unwrap());
        if number < 3 {
            incidents.ended(&path).unwrap();
        }
    }
    assert_eq!((incidents.len(), incidents.bytes(), incidents.is_open()), (3, 300, true));
    assert_eq!(incidents.make_room(250), 1);
    assert!(!Path::new(&kept[0].directory).exists() && Path::new(&kept[1].directory).exists());
    assert_eq!(incidents.make_room(50), 1);
    // Too large alone: it stays, and gets no more.
    assert!(Path::new(&kept[2].directory).exists() && !incidents.is_open());
    assert_eq!(fs::read_dir(&incidents_at).unwrap().count(), 1);
}

#[test]
fn an_incident_of_a_killed_agent_goes_on_if_its_time_is_not_over() {
    let directory = tempfile::tempdir().unwrap();
    let (ring_at, incidents_at) = (directory.path().join("ring"), directory.path().join("incidents"));
    fs::create_dir_all(&ring_at).unwrap();
    fs::create_dir_all(&incidents_at).unwrap();
    let current = part(&ring_at, 4, 1, 100);
    let ring = Ring::adopt(ring_at.clone()).unwrap();
    let mut incidents = Incidents::adopt(incidents_at.clone(), &retention(), at(0), &ring).unwrap();
    let parts = std::iter::once(current.as_path());
    let kept = incidents.keep(at(0), Why::Signal, &retention(), parts).unwrap();
    // Killed: and the part had got its last form a moment before.
    drop(incidents);
    fs::remove_file(&current).unwrap();
    part(&ring_at, 4, 1, 40);
    fs::create_dir(incidents_at.join(".deleting-000000-x")).unwrap();
    let ring = Ring::adopt(ring_at.clone()).unwrap();
    let mut incidents = Incidents::adopt(incidents_at.clone(), &retention(), at(30), &ring).unwrap();
    assert!(incidents.is_open());
    assert_eq!((incidents.last_run(), incidents.bytes(), incidents.len()), (4, 40, 1));
    assert!(!incidents_at.join(".deleting-000000-x").exists());
    let next = part(&ring_at, 5, 1, 7);
    incidents.writing(&next).unwrap();
    assert!(Path::new(&kept.directory).join(next.file_name().unwrap()).exists());
    // And it is closed where it is over.
    drop(incidents);
    let incidents = Incidents::adopt(incidents_at, &retention(), at(90), &ring).unwrap();
    assert!(!incidents.is_open());
    let about = fs::read_to_string(Path::new(&kept.directory).join("incident.json")).unwrap();
    assert!(about.contains("\"closed\":true"), "{about}");
}

#[test]
fn a_directory_has_one_agent_and_others_cannot_write_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent");
    let place = Place::take(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    let refused = Place::take(&path).unwrap_err().to_string();
    let words = format!("another tcptrace agent (pid {}) records there already", std::process::id());
    assert!(refused.contains(&words), "{refused}");
    drop(place);
    Place::take(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let refused = Place::take(&path).unwrap_err();
    assert!(matches!(refused, PlaceError::Shared { .. }), "{refused}");
}

fn tick(second: u64) -> Event {
    Event { time: at(second), kind: Kind::Tick }
}

#[test]
fn after_the_disk_was_full_a_new_part_says_how_much_is_missing() {
    /// Goes on as soon as the test has made room.
    struct Patient(Arc<Status>);
    impl Custodian for Patient {
        fn failed(&mut self, _: &std::io::Error) -> Option<Duration> {
            self.0.set_failing(true);
            Some(Duration::from_millis(20))
        }
        fn resumed(&mut self, _: &Path, lost: u64) {
            self.0.set_failing(false);
            status::add(&self.0.unrecorded, lost);
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ring").join("run.arrows");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let status = Arc::new(Status::default());
    let plan = crate::record::Plan {
        path: path.clone(),
        rotation: Some(Rotation::Time(Duration::ZERO)),
        ..crate::record::Plan::default()
    };
    let metadata = Metadata { recording: "r".into(), part: 1, ..Metadata::default() };
    let mut recorder =
        crate::record::Recorder::with_custodian(plan, metadata, Patient(Arc::clone(&status)), 1 << 16)
            .unwrap();
    let other = Event {
        time: at(1),
        kind: Kind::Lost(Box::new(crate::event::Lost {
            what: "x".into(),
            count: 1,
            place: crate::event::LossPlace::Output,
            from: at(0),
            to: at(1),
        })),
    };
    // The next part cannot be made: its directory is gone.
    fs::rename(directory.path().join("ring"), directory.path().join("gone")).unwrap();
    recorder.record(std::slice::from_ref(&other)).unwrap();
    let wait = |want: bool| {
        for _ in 0..500 {
            if status.is_failing() == want {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("still {}", !want);
    };
    wait(true);
    recorder.record(&[other.clone(), tick(2)]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    fs::rename(directory.path().join("gone"), directory.path().join("ring")).unwrap();
    wait(false);
    let told = recorder.record(&[tick(3)]).unwrap().unwrap();
    assert!(matches!(&told.kind, Kind::Lost(lost) if lost.count == 2), "{told:?}");
    recorder.finish().unwrap();
    let mut tapes = crate::record::open(&[directory.path().join("ring")]).unwrap();
    let (mut events, mut lost) = (Vec::new(), 0);
    while tapes[0].next_events(&mut events).unwrap() {}
    for event in &events {
        if let Kind::Lost(of) = &event.kind
            && of.what == "event"
        {
            lost += of.count;
        }
    }
    assert_eq!(lost, 2, "{events:?}");
    assert!(events.iter().any(|event| event.time == at(3)), "{events:?}");
}

#[test]
fn a_trigger_is_answered_with_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place::take(&directory.path().join("agent")).unwrap();
    let (trigger, triggers) = channel();
    let (note, notes) = channel();
    let status = Arc::new(Status::default());
    let mut keeper =
        Keeper::adopt(&place, Arc::new(Mutex::new(retention())), triggers, Arc::clone(&status), note)
            .unwrap();
    let current = part(&place.ring(), 1, 1, 30);
    let (answer, mut answered) = tokio::sync::oneshot::channel();
    trigger.send(Trigger { time: at(0), why: Why::Request, answer: Some(answer) }).unwrap();
    keeper.look_at(&current);
    let kept = answered.try_recv().unwrap().unwrap();
    assert!(Path::new(&kept.directory).join(current.file_name().unwrap()).exists());
    assert!(notes.try_recv().unwrap().contains(&kept.directory));
    assert_eq!(status.incidents.load(std::sync::atomic::Ordering::Relaxed), 1);
}
