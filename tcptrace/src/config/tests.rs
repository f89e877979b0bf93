//! What settings are, where they come from, and what is refused.

use std::num::NonZeroU64;
use std::time::Duration;

use super::places::{Place, Whose};
use super::*;

fn file(place: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = place.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn nothing(_: &str) -> Option<OsString> {
    None
}

fn settings(text: &str) -> Result<Settings, String> {
    let place = tempfile::tempdir().unwrap();
    let path = file(&place, "tcptrace.toml", text);
    let settings = Settings::of(&[Place::of(path, Whose::Own)], &nothing);
    settings.map_err(|error| error.to_string().replace(&format!("{}/", place.path().display()), ""))
}

#[test]
fn without_files_everything_is_as_it_was() {
    let nowhere = tempfile::tempdir().unwrap();
    let places = [Place::of(nowhere.path().join("no/file"), Whose::Own)];
    let settings = Settings::of(&places, &nothing).unwrap();
    assert_eq!(settings.config, Config::default());
    assert_eq!(settings.config.thresholds, Thresholds::default());
    assert_eq!(settings.files[0].found, Found::NotThere);
    assert!(settings.set_below("thresholds").is_empty());
    // One that is named must be there.
    let places = [Place::of(nowhere.path().join("no/file"), Whose::Named)];
    let error = Settings::of(&places, &nothing).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration") && error.contains("no/file"), "{error}");
}

#[test]
fn every_kind_of_value_is_read() {
    let settings = settings(
        r#"
        [look]
        color = "never"
        utc = true
        [top]
        theme = "contrast"
        ascii = true
        mouse = true
        [filters]
        port = ["80,443", 8080, "9000-9009"]
        comm = "nginx, redis-server"
        peer = "10.0.0.0/8"
        finding = ["slow-accept"]
        [thresholds]
        accept-stall = { after = "5s", critical = "1m" }
        slow-accept.wait = "250ms"
        slow-accept.accepts = 7
        connect-refused.connects = 1
        handshake-dropped.packets = 16
        [agent]
        dir = "/var/lib/tcptrace"
        metrics = "127.0.0.1:9797"
        keep-size = "2G"
        keep-incidents = "1500k"
        keep-age = "3h"
        keep-on = "warning"
        after = "0s"
        "#,
    )
    .unwrap();
    let config = &settings.config;
    assert_eq!((config.look.color, config.look.utc), (When::Never, true));
    assert_eq!((config.top.theme, config.top.ascii, config.top.mouse), (Some(Theme::Contrast), true, true));
    assert_eq!(config.filters.port, ["80", "443", "8080", "9000-9009"]);
    assert_eq!(config.filters.ports().len(), 4);
    assert_eq!(config.filters.comm, ["nginx", "redis-server"]);
    assert_eq!(config.filters.networks().len(), 1);
    assert_eq!(config.thresholds.accept_stall.after, Duration::from_secs(5));
    assert_eq!(config.thresholds.accept_stall.critical, Duration::from_secs(60));
    assert_eq!(config.thresholds.slow_accept.wait, Duration::from_millis(250));
    assert_eq!(config.thresholds.slow_accept.accepts, NonZeroU64::new(7).unwrap());
    assert_eq!(config.thresholds.connect_refused.connects.get(), 1);
    assert_eq!(config.thresholds.handshake_dropped.packets.get(), 16);
    assert_eq!(settings.set_below("thresholds").len(), 6);
    let expected = AgentSettings {
        dir: Some(PathBuf::from("/var/lib/tcptrace")),
        metrics: Some("127.0.0.1:9797".parse().unwrap()),
        keep_size: 2 << 30,
        keep_incidents: 1500 << 10,
        keep_age: Duration::from_secs(3 * 3600),
        keep_on: KeepOn::Warning,
        after: Duration::ZERO,
        ..AgentSettings::default()
    };
    assert_eq!(config.agent, expected);
}

/// What is wrong is said in a sentence, with line and column.
#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, place, words) in [
        ("[look]\ncolour = \"never\"", "2:1", "unknown field `colour`, expected `color` or `utc`"),
        ("[loook]\n", "1:2", "unknown field `loook`, expected one of"),
        (
            "[look]\n  color = \"red\"",
            "2:11",
            "unknown variant `red`, expected one of `auto`, `always`, `never`",
        ),
        ("[look]\nutc = 1", "2:7", "invalid type: integer `1`, expected a boolean"),
        ("[look\n", "1:6", ""),
        ("x = \n", "1:5", ""),
        ("[top]\ntheme = \"pink\"", "2:9", "unknown variant `pink`"),
        ("[filters]\nport = \"0\"", "2:8", "port 0 is no port"),
        ("[filters]\nport = 65536", "2:8", "65536"),
        ("[filters]\nport = [[80]]", "2:8", "use a text, or a list of texts"),
        ("[filters]\npeer = \"10.0.0.0/33\"", "2:8", "is not a network"),
        ("[filters]\ncomm = \"a-name-that-is-too-long\"", "2:8", "the kernel keeps 15 bytes"),
        ("[filters]\ncontainer = \"\"", "2:13", "no name is given"),
        ("[filters]\nfinding = \"slow\"", "2:11", "\"slow\" is no code of a finding"),
        ("[thresholds.slow-accept]\nwait = \"soon\"", "2:8", "\"soon\" is not a time"),
        ("[thresholds.slow-accept]\nwait = \"0s\"", "2:8", "no time that passes"),
        ("[thresholds.slow-accept]\naccepts = 0", "2:11", "nonzero"),
        ("[thresholds.accept-stall]\nafter = \"10ms\"", "2:9", "listeners are read once a second"),
        ("[thresholds.connect-refused]\nconnects = 17", "2:12", "17 is not a number from 1 to 16"),
        ("[thresholds.no-such]\n", "1:13", "unknown field `no-such`"),
        ("[look]\nutc = true\nutc = false", "3:1", "duplicate key"),
        ("[agent]\nkeep-sizes = \"1G\"", "2:1", "unknown field `keep-sizes`"),
        ("[agent]\nkeep-size = \"much\"", "2:13", "\"much\" is not a size"),
        ("[agent]\nmetrics = \"localhost\"", "2:11", "invalid socket address"),
        ("[agent]\nkeep-age = \"a day\"", "2:12", "\"a day\" is not a time"),
        ("[agent]\nkeep-on = \"all\"", "2:11", "unknown variant `all`, expected `critical` or `warning`"),
    ] {
        let error = settings(text).unwrap_err();
        let begin = format!("tcptrace.toml:{place}: ");
        assert!(error.starts_with(&begin) && error.contains(words), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error:?}");
        assert!(error.ends_with("; --config /dev/null does without configuration"), "{error}");
    }
}

#[test]
fn columns_are_counted_in_characters() {
    let error = settings("[filters]\nport = [\"80\", \"é\"]\n# ü\n[look]\nx = 1").unwrap_err();
    assert!(error.starts_with("tcptrace.toml:2:8: "), "{error}");
    let error = settings("look = { color = \"auto\", \"ü\" = 1, y = 2 }").unwrap_err();
    assert!(error.starts_with("tcptrace.toml:1:35: "), "{error}");
}

#[test]
fn what_is_not_text_or_endless_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let binary = place.path().join("binary");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    let endless = PathBuf::from("/dev/zero");
    for (path, words) in
        [(binary, "it is not text"), (endless, "longer than"), (place.path().to_owned(), "directory")]
    {
        let error = Settings::of(&[Place::of(path, Whose::Named)], &nothing).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn later_places_win_and_the_environment_wins_over_them() {
    let place = tempfile::tempdir().unwrap();
    let host =
        file(&place, "host", "[thresholds.slow-accept]\nwait = \"2s\"\naccepts = 5\n[look]\nutc = true");
    let own = file(&place, "own", "[thresholds.slow-accept]\nwait = \"3s\"\n[filters]\nport = 80");
    let places = [Place::of(host.clone(), Whose::Own), Place::of(own.clone(), Whose::Own)];
    let variable = |name: &str| match name {
        "TCPTRACE_LOOK_UTC" => Some("false".into()),
        "TCPTRACE_FILTERS_PORT" => Some("443,8000-8099".into()),
        "TCPTRACE_THRESHOLDS_ACCEPT_STALL_AFTER" => Some("7s".into()),
        _ => None,
    };
    let settings = Settings::of(&places, &variable).unwrap();
    let config = &settings.config;
    assert_eq!(config.thresholds.slow_accept.wait, Duration::from_secs(3));
    assert_eq!(config.thresholds.slow_accept.accepts.get(), 5);
    assert_eq!(config.thresholds.accept_stall.after, Duration::from_secs(7));
    assert_eq!(config.thresholds.accept_stall.critical, Duration::from_secs(10));
    assert!(!config.look.utc);
    assert_eq!(config.filters.port, ["443", "8000-8099"]);
    assert_eq!(settings.source("thresholds.slow-accept.wait"), Some(own.to_str().unwrap()));
    assert_eq!(settings.source("thresholds.slow-accept.accepts"), Some(host.to_str().unwrap()));
    assert_eq!(settings.source("look.utc"), Some("$TCPTRACE_LOOK_UTC"));
    assert_eq!(settings.source("look.color"), None);
    let error = Settings::of(&[], &|name| (name == "TCPTRACE_LOOK_UTC").then(|| "perhaps".into()));
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("TCPTRACE_LOOK_UTC=perhaps: invalid type"), "{error}");
    // No assignment of another key comes in with a value.
    let hostile = |name: &str| (name == "TCPTRACE_LOOK_COLOR").then(|| "\"auto\"\n[look]\nutc = true".into());
    assert!(Settings::of(&[], &hostile).is_err());
}

#[test]
fn no_color_wins_over_a_file_and_not_over_a_variable_of_our_own() {
    let place = tempfile::tempdir().unwrap();
    let places = [Place::of(file(&place, "own", "[look]\ncolor = \"always\""), Whose::Own)];
    let no_color = |name: &str| (name == "NO_COLOR").then(|| "1".into());
    let settings = Settings::of(&places, &no_color).unwrap();
    assert_eq!((settings.config.look.color, settings.source("look.color")), (When::Auto, Some("$NO_COLOR")));
    let both = |name: &str| match name {
        "NO_COLOR" => Some("1".into()),
        "TCPTRACE_LOOK_COLOR" => Some("always".into()),
        _ => None,
    };
    assert_eq!(Settings::of(&places, &both).unwrap().config.look.color, When::Always);
}

/// What the agent opens and writes is for root to say.
#[test]
fn the_user_who_called_sudo_cannot_set_what_is_root_s() {
    let place = tempfile::tempdir().unwrap();
    let text = "[look]\nutc = true\n[agent]\nlisten = \"0.0.0.0:80\"";
    let path = file(&place, "own", text);
    let error = Settings::of(&[Place::of(path, Whose::Invoker)], &nothing).unwrap_err().to_string();
    assert!(error.contains("[agent] is not taken from the file of the user who called sudo"), "{error}");
    let path = file(&place, "looks", "[look]\nutc = true");
    let settings = Settings::of(&[Place::of(path, Whose::Invoker)], &nothing).unwrap();
    assert!(settings.config.look.utc);
    assert!(settings.in_words()[0].ends_with("looks (of the user who called sudo): read"));
}

/// What is printed sets the same when it is read.
#[test]
fn what_is_printed_sets_the_same() {
    let mut set =
        settings("[filters]\nport = \"80,90-99\"\n[thresholds.slow-accept]\nwait = \"90s\"").unwrap();
    set.note("look.utc", "--utc".to_owned());
    set.config.look.utc = true;
    set.config.agent.keep_size = (1 << 30) + (1 << 10);
    set.config.agent.keep_age = Duration::from_millis(90_250);
    let lines = set.in_words();
    let again = settings(&lines.join("\n")).unwrap();
    assert_eq!(again.config, set.config);
    let text = lines.join("\n");
    assert!(text.contains("utc = true  # --utc\n"), "{text}");
    assert!(text.contains("color = \"auto\"  # default\n"), "{text}");
    assert!(text.contains("# theme is not set"), "{text}");
    let headers = |name: &str| lines.iter().filter(|line| line.as_str() == name).count();
    assert_eq!((headers("[filters]"), headers("[thresholds.slow-accept]")), (1, 1), "{text}");
}

#[test]
fn what_has_changed_is_named_by_its_key() {
    let one = settings("[agent]\nkeep-size = \"1G\"\n[look]\nutc = true").unwrap();
    let other =
        settings("[agent]\nkeep-size = \"1024M\"\npart = \"2m\"\n[thresholds.slow-accept]\nwait = \"2s\"")
            .unwrap();
    let changes = one.changes(&other, &["agent", "thresholds"]);
    assert_eq!(changes, ["agent.part", "thresholds.slow-accept.wait"]);
}

/// The page names every key, with its default and its variable.
#[test]
fn the_page_names_every_key() {
    let page = include_str!("../../../docs/config.md");
    for (key, value) in layer::flat(&Config::default()) {
        let (section, name) = key.rsplit_once('.').unwrap();
        let default = if value.is_null() { "–".to_owned() } else { format!("`{value}`") };
        let row = format!("| `{section}` | `{name}` | {default} |");
        assert!(page.contains(&row), "docs/config.md lacks {row}");
        assert!(page.contains(&variable_of("look.color")));
    }
    let keys = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(keys, super::keys().len(), "docs/config.md names a key that there is not");
}
