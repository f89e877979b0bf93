//! Whether the client's namespace has a route there.

use crate::finding::{Confidence, Remedy};
use crate::host::route::{Nowhere, Route};
use crate::why::{AddressFacts, Facts, Found, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let (client, to) = (&facts.client, address.to.ip());
    match &address.route {
        Err(why) => Found::unknown(why),
        Ok(Route::Local) => Found::fine(format!("{to} is an address of {client}")),
        Ok(Route::Unicast { gateway, device, source }) => {
            let via = gateway.map_or_else(|| "directly".to_owned(), |gateway| format!("by {gateway}"));
            let from = source.map_or_else(String::new, |source| format!(", from {source}"));
            // A proxy takes connections to other hosts.
            let is_caught = address.steered.known.as_ref().is_some_and(|known| known.ends_there);
            let whose = match address.server.as_ref().filter(|_| !is_caught) {
                Some(server) => format!("; it is an address of {server} on this host"),
                None => String::new(),
            };
            let device = facts.device_named(client.netns, *device);
            Found::fine(format!("{to} is reached {via} on device {device}{from}{whose}"))
        }
        Ok(Route::NotUnicast) => Found::Problem(Verdict::new(
            "not-unicast",
            Confidence::Certain,
            format!("{to} is a broadcast or multicast address: TCP does not go there"),
        )),
        Ok(Route::Nowhere(how)) => {
            let text = match how {
                Nowhere::NoRoute => {
                    format!("{client} has no route to {to}: connect() fails with ENETUNREACH")
                }
                Nowhere::Blackhole => format!("a blackhole route of {client} swallows packets to {to}"),
                Nowhere::Unreachable => format!(
                    "an unreachable route of {client} refuses {to}: connect() fails with EHOSTUNREACH"
                ),
                Nowhere::Prohibit => {
                    format!("a prohibit route of {client} forbids {to}: connect() fails with EACCES")
                }
            };
            // A connect program of the control group may call another address before a route is looked for.
            let (confidence, text) = if address.steered.may_rewrite_connects {
                let but =
                    "not certain, because BPF programs of the control group may change what is connected to";
                (Confidence::Likely, format!("{text}; {but}"))
            } else {
                (Confidence::Certain, text)
            };
            let verdict = Verdict::new(how.name(), confidence, text);
            Found::Problem(
                verdict
                    .advise(Remedy::command("look at the route that decides", format!("ip route get {to}"))),
            )
        }
    }
}
