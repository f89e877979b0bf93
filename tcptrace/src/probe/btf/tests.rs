//! Against real kernels, and against damaged and hostile bytes.
//!
//! The running kernel's BTF is used where there is one; `TCPTRACE_TEST_BTF` may name those of other kernels, separated by
//! colons.

use std::path::PathBuf;
use std::time::Instant;

use proptest::prelude::*;
use tcptrace_common::{ABSENT, KernelLayout};

use super::builder::{Builder, kind};
use super::text::type_text;
use super::{Btf, VMLINUX, resolve};

fn real_kernels() -> Vec<PathBuf> {
    let more = std::env::var("TCPTRACE_TEST_BTF").unwrap_or_default();
    let mut paths: Vec<_> = more.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    let vmlinux = PathBuf::from(VMLINUX);
    if vmlinux.exists() {
        paths.insert(0, vmlinux);
    } else {
        println!("skipped: this kernel has no {VMLINUX}");
    }
    paths
}

/// With `--nocapture` it prints the layout of each kernel.
#[test]
fn real_kernels_have_what_is_looked_up() {
    for path in real_kernels() {
        let start = Instant::now();
        let btf = Btf::load_from(&path).unwrap();
        let loaded = start.elapsed();
        let resolution = resolve(&btf);
        println!("{}: {btf:?} loaded in {loaded:?}, resolved after {:?}", path.display(), start.elapsed());
        for ((name, source), value) in KernelLayout::ENTRIES.iter().zip(resolution.layout.values()) {
            println!("{}\t{name}\t{source:?}\t{}", path.display(), value.cast_signed());
        }
        println!("missing: {:?}", resolution.missing);

        assert_eq!(resolution.ambiguous, [""; 0]);
        // Where these lie is the same in every kernel seen so far, on both architectures.
        let layout = resolution.layout;
        assert_eq!(
            [layout.skc_daddr, layout.skc_rcv_saddr, layout.skc_dport, layout.skc_num, layout.skc_family],
            [0, 4, 12, 14, 16]
        );
        assert_eq!([layout.skc_state, layout.skc_reuse, layout.skc_bound_dev_if], [18, 19, 20]);
        assert_eq!(
            [layout.skc_reuse_shift, layout.skc_reuseport_shift, layout.skc_ipv6only_shift],
            [0, 4, 5]
        );
        // Pairs of which a kernel has either.
        for (old, new) in [(layout.inet_freebind, layout.inet_flags), (layout.tb_owners, layout.tb_bhash2)] {
            assert_eq!([old, new].iter().filter(|value| **value == ABSENT).count(), 1);
        }
        assert_eq!(layout.inet_flags == ABSENT, layout.inet_flag_transparent == ABSENT);
        assert!([1, 4].contains(&layout.net_syncookies_size));
        assert!(layout.sk_max_ack_backlog.abs_diff(layout.sk_ack_backlog) == 4);
        assert!([6, 7].contains(&layout.params_tcp_v4_syn_recv_sock));

        assert!(btf.has_function("tcp_v4_syn_recv_sock") && btf.has_tracepoint("kfree_skb"));
        assert!(!btf.has_function("kfree_skb_absent") && !btf.has_tracepoint("kfree_skb_absent"));
        let sock = btf.param_type_name("tcp_v4_syn_recv_sock", 0);
        assert!(["struct sock *", "const struct sock *"].contains(&sock.as_deref().unwrap()), "{sock:?}");
        assert_eq!(btf.return_type_name("tcp_v4_syn_recv_sock").as_deref(), Some("struct sock *"));
        assert_eq!(btf.function_returns("inet_csk_listen_start"), Some(true));
        assert_eq!(btf.function_returns("inet_put_port"), Some(false));
        assert_eq!(btf.param_type_name("btf_trace_kfree_skb", 1).as_deref(), Some("struct sk_buff *"));
        let reasons = btf.enum_names("skb_drop_reason", "SKB_DROP_REASON_");
        assert_eq!(reasons.is_empty(), layout.params_trace_kfree_skb < 4);
        assert!(reasons.is_empty() || reasons.values().any(|name| name == "TCP_CSUM"));
    }
}

/// Asks everything that can be asked. Whatever the bytes, this must end, and must not panic.
fn ask_everything(bytes: Vec<u8>) {
    let Ok(btf) = Btf::parse(bytes) else { return };
    let resolution = resolve(&btf);
    assert_eq!(
        resolution.missing.len(),
        resolution.layout.values().iter().filter(|value| **value == ABSENT).count()
    );
    for name in NAMES {
        let _ = (btf.has_function(name), btf.has_tracepoint(name), btf.function_returns(name));
        let _ = (btf.params_of(name), btf.return_type_name(name), btf.param_type_name(name, 1));
        let _ = btf.enum_names(name, "S");
    }
    for id in 0..100 {
        let _ = type_text(&btf, id);
    }
}

/// Names that lookups ask for, so that random types are found.
const NAMES: [&str; 12] = [
    "",
    "sock",
    "net",
    "ipv4",
    "sk_err",
    "sysctl_tcp_syncookies",
    "sk_userlocks",
    "skb_drop_reason",
    "SKB_DROP_REASON_TCP_LISTEN_OVERFLOW",
    "inet_csk_accept",
    "btf_trace_kfree_skb",
    "kfree_skb",
];

/// A few types that some lookups succeed in.
fn small_kernel() -> Builder {
    let mut builder = Builder::new();
    let int = builder.int("int", 4);
    let inner = builder.bit_struct("", 8, &[("sk_userlocks", int, 4, 4), ("sk_protocol", int, 32, 0)]);
    let sock = builder.composite(kind::STRUCT, "sock", 64, &[("sk_err", int, 8), ("", inner, 16)]);
    let ipv4 = builder.composite(kind::STRUCT, "netns_ipv4", 32, &[("sysctl_tcp_syncookies", int, 8)]);
    builder.composite(kind::STRUCT, "net", 64, &[("ipv4", ipv4, 16)]);
    let pointer = builder.ptr(sock);
    builder.function("inet_csk_accept", pointer, &[pointer, int]);
    let prototype = builder.prototype(0, &[pointer, pointer, int]);
    let probe = builder.ptr(prototype);
    builder.refer(kind::TYPEDEF, "btf_trace_kfree_skb", probe);
    let prototype = builder.prototype(0, &[pointer, pointer, pointer, int]);
    let probe = builder.ptr(prototype);
    builder.refer(kind::TYPEDEF, "btf_trace_tcp_retransmit_skb", probe);
    builder.enumeration("skb_drop_reason", false, &[("SKB_DROP_REASON_TCP_LISTEN_OVERFLOW", 40)]);
    builder.enumeration("", false, &[("INET_FLAGS_FREEBIND", 11)]);
    builder
}

#[test]
fn a_small_kernel_resolves() {
    let btf = Btf::parse(small_kernel().build()).unwrap();
    let layout = resolve(&btf).layout;
    let expected = KernelLayout {
        sk_err: 8,
        sk_userlocks: 16,
        sk_userlocks_shift: 4,
        sk_protocol: 20,
        net_syncookies: 24,
        net_syncookies_size: 4,
        inet_flag_freebind: 11,
        params_inet_csk_accept: 2,
        params_trace_kfree_skb: 3,
        params_trace_tcp_retransmit_skb: 4,
        drop_tcp_listen_overflow: 40,
        ..KernelLayout::NOTHING
    };
    assert_eq!(layout, expected);
}

#[test]
fn nothing_resolves_from_nothing() {
    let resolution = resolve(&Btf::parse(Builder::new().build()).unwrap());
    assert_eq!(resolution.layout, KernelLayout::NOTHING);
    assert_eq!(resolution.missing.len(), KernelLayout::ENTRIES.len());
}

/// Every lookup walks over all of these, and each of them could make it walk over all others.
#[test]
fn hostile_types_cost_no_more_than_their_size() {
    let mut builder = Builder::new();
    let fan: Vec<_> = (1..=300).map(|id| ("", id, 0)).collect();
    for _ in 0..300 {
        builder.composite(kind::UNION, "sock", 8, &fan);
    }
    let long = "x".repeat(510);
    for _ in 0..20_000 {
        builder.refer(kind::TYPEDEF, &long, 1);
    }
    ask_everything(builder.build());
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        ask_everything(bytes);
    }

    #[test]
    fn random_sections_do_no_harm(
        types in proptest::collection::vec(any::<u8>(), 0..512),
        strings in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = Builder::new().build();
        bytes.truncate(24);
        bytes[12..16].copy_from_slice(&u32::try_from(types.len()).unwrap().to_le_bytes());
        bytes[16..20].copy_from_slice(&u32::try_from(types.len()).unwrap().to_le_bytes());
        bytes[20..24].copy_from_slice(&u32::try_from(strings.len() + 1).unwrap().to_le_bytes());
        ask_everything([&bytes[..], &types, &strings, &[0]].concat());
    }

    /// Well-formed, with names that are asked for and references that lead anywhere.
    #[test]
    fn random_types_do_no_harm(
        big_endian in any::<bool>(),
        types in proptest::collection::vec(
            (
                0..NAMES.len(),
                1u8..20,
                any::<bool>(),
                prop_oneof![0u32..40, any::<u32>()],
                proptest::collection::vec((0..NAMES.len(), 0u32..40, prop_oneof![0u32..300, any::<u32>()]), 0..6),
            ),
            0..40,
        ),
    ) {
        let mut builder = if big_endian { Builder::big_endian() } else { Builder::new() };
        for (name, number, flag, size_or_type, rows) in types {
            let elements = rows.len();
            let rows: Vec<[u32; 3]> =
                rows.into_iter().map(|(name, id, number)| [builder.string(NAMES[name]), id, number]).collect();
            let words: Vec<u32> = match number {
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => rows.concat(),
                kind::ENUM | kind::FUNC_PROTO => rows.iter().flat_map(|[name, id, _]| [*name, *id]).collect(),
                kind::INT | kind::VAR | kind::DECL_TAG => vec![size_or_type],
                kind::ARRAY => vec![size_or_type % 40, 0, size_or_type],
                _ => Vec::new(),
            };
            builder.raw(NAMES[name], number, flag, elements, size_or_type, &words);
        }
        let bytes = builder.build();
        prop_assert!(Btf::parse(bytes.clone()).is_ok());
        ask_everything(bytes);
    }

    #[test]
    fn a_damaged_small_kernel_does_no_harm(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = small_kernel().build();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        ask_everything(bytes.clone());
        bytes.truncate(length.index(bytes.len()));
        ask_everything(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_damaged_real_kernel_does_no_harm(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let Ok(mut bytes) = std::fs::read(VMLINUX) else { return Ok(()) };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        ask_everything(bytes.clone());
        bytes.truncate(cut.index(bytes.len()));
        ask_everything(bytes);
    }

    /// One word in eight that refers to another type, a name, an offset or a value: every type can still be told from the
    /// next one, but hardly any makes sense.
    #[test]
    fn a_real_kernel_of_nonsense_does_no_harm(seed in 1u32.., id_limit in prop_oneof![1u32..1000, any::<u32>()]) {
        let Ok(mut bytes) = std::fs::read(VMLINUX) else { return Ok(()) };
        let intact = Btf::parse(bytes.clone()).unwrap();
        let mut random = seed;
        for id in 1.. {
            let Some(words) = intact.damageable(id) else { break };
            for word in bytes[words].chunks_exact_mut(4) {
                // xorshift32: proptest's own generator would keep a tree of half a million values to shrink.
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                if random.is_multiple_of(8) {
                    word.copy_from_slice(&(random.rotate_left(7) % id_limit).to_ne_bytes());
                }
            }
        }
        prop_assert!(Btf::parse(bytes.clone()).is_ok());
        ask_everything(bytes);
    }
}
