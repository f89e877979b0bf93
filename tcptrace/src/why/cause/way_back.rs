//! Whether the server's namespace, if it is on this host, has a route back to the client.

use crate::finding::{Confidence, Remedy};
use crate::host::route::Route;
use crate::why::{AddressFacts, Facts, Found, Verdict};

pub(in crate::why) fn judge(facts: &Facts, address: &AddressFacts) -> Found {
    let Some(server) = &address.server else {
        return Found::unknown("what comes back from another host is not known here");
    };
    let Some((source, route)) = &address.way_back else {
        return Found::fine("client and server are in one network namespace");
    };
    let client = &facts.client;
    match route {
        Route::Nowhere(_) | Route::NotUnicast => {
            let text = format!(
                "{server} has no route back to {source}, the address of {client}: SYNs are dropped before they are answered"
            );
            // What translates the destination may translate the source as well.
            let (confidence, text) = match &address.steered.known {
                Some(known) => {
                    (Confidence::Likely, format!("{text}, unless {} also translates that address", known.at))
                }
                None => (Confidence::Certain, text),
            };
            let verdict = Verdict::new("no-route-back", confidence, text);
            Found::Problem(verdict.advise(Remedy::text(format!(
                "add a route to {source} there (ip route get {source} shows what decides)"
            ))))
        }
        Route::Local => Found::fine(format!("{source} is also an address of {server}")),
        Route::Unicast { device, .. } => {
            let device = facts.device_named(server.netns, *device);
            Found::fine(format!("{server} answers {source} by device {device}"))
        }
    }
}
