//! SYN cookies, and a virtual address's rate of new connections.

use edge_datapath::Action;
use edge_datapath_tests::explained::{explainer, run};
use edge_datapath_tests::frame::{ACK, Packet, TCP4, TCP6, inserted, tagged, with};
use edge_datapath_tests::setup::config;
use edge_model::{DataPathConfig, SynCookies, TokenRate};

use crate::WORKERS;

#[test]
fn a_syn_is_answered_with_a_cookie_that_its_ack_brings_back() {
    let mut explainer = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Always),
        ..config(WORKERS)
    });
    for (packet, tcp, tagged_too) in [(TCP4, 34, false), (TCP6, 54, false), (TCP4, 38, true)] {
        let syn = if tagged_too {
            tagged(packet.linux_syn())
        } else {
            packet.linux_syn()
        };
        // One a second is left to the kernel.
        if !tagged_too {
            assert_eq!(run(&mut explainer, &syn).reason, "deliver");
        }
        let answer = run(&mut explainer, &syn);
        assert_eq!((answer.action, answer.reason), (Action::Tx, "syn_cookie"));
        let out = &answer.packet_out;
        assert_eq!(
            (&out[..6], &out[6..12]),
            (&syn[6..12], &syn[..6]),
            "MAC addresses"
        );
        assert_eq!(
            (&out[tcp..tcp + 2], &out[tcp + 2..tcp + 4]),
            (&syn[tcp + 2..tcp + 4], &syn[tcp..tcp + 2])
        );
        assert_eq!(out[tcp + 13], 0x12, "SYN and ACK");
        assert_eq!(
            out[tcp + 8..tcp + 12],
            [0, 0, 0, 2],
            "the SYN's number, and one more"
        );
        assert_eq!(&out[tcp + 20..tcp + 22], [2, 4], "the MSS");
        let cookie = u32::from_be_bytes(out[tcp + 4..tcp + 8].try_into().expect("four bytes"));
        let ack = |number: u32| {
            let ack = Packet { flags: ACK, ..packet }.frame();
            let ack = if tagged_too { tagged(ack) } else { ack };
            let ack = with(ack, tcp + 4, &[0, 0, 0, 2]);
            with(ack, tcp + 8, &number.to_be_bytes())
        };
        let right = run(&mut explainer, &ack(cookie.wrapping_add(1)));
        assert_eq!((right.action, right.reason), (Action::Pass, "deliver"));
        let wrong = run(&mut explainer, &ack(cookie.wrapping_add(1000)));
        assert_eq!((wrong.action, wrong.reason), (Action::Drop, "bad_syn_cookie"));
    }
    let options = with(inserted(TCP4.frame(), 34, &[1; 8]), 14, &[0x47, 0, 0, 48]);
    assert_eq!(run(&mut explainer, &options).reason, "syn_options");
}

#[test]
fn cookies_begin_above_the_rate_of_syns_and_a_vip_is_held_to_its_rate() {
    let rate = |burst| TokenRate { per_second: 1, burst };
    let mut auto = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Above(rate(3))),
        ..config(WORKERS)
    });
    let again: Vec<_> = (0..9).map(|_| run(&mut auto, &TCP4.frame()).reason).collect();
    assert_eq!(
        again, ["deliver"; 9],
        "one that is sent again is not counted again"
    );
    let mut others =
        (1000..2000).map(|source_port| run(&mut auto, &Packet { source_port, ..TCP4 }.frame()).reason);
    let first = others.position(|reason| reason == "syn_cookie");
    // Three are within the rate, and the next is left to the kernel; a slow machine's second admits one more.
    assert!(first.is_some_and(|first| first >= 3), "{first:?}");
    assert_eq!(run(&mut auto, &TCP6.frame()).reason, "deliver", "another VIP");
    let mut limited = explainer(&DataPathConfig {
        vip_limit: Some(rate(2)),
        ..config(WORKERS)
    });
    let reasons: Vec<_> = (0..3).map(|_| run(&mut limited, &TCP4.frame()).reason).collect();
    assert_eq!(reasons, ["deliver", "deliver", "vip_new_connections"]);
    let ack = Packet { flags: ACK, ..TCP4 };
    assert_eq!(run(&mut limited, &ack.frame()).reason, "deliver");
}

#[test]
fn a_syn_whose_handshake_ends_is_not_counted_and_a_made_up_end_does_not_help() {
    let mut always = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Always),
        ..config(WORKERS)
    });
    // The first is left to the kernel.
    run(&mut always, &TCP4.frame());
    let mut auto = explainer(&DataPathConfig {
        syn_cookies: Some(SynCookies::Above(TokenRate {
            per_second: 1,
            burst: 3,
        })),
        ..config(WORKERS)
    });
    // Where the TCP header begins, and the number of a SYN of the tests and one more.
    let (tcp, next) = (34, [0, 0, 0, 2]);
    let ack = |source_port, number: u32| {
        let ack = Packet {
            flags: ACK,
            source_port,
            ..TCP4
        };
        with(with(ack.frame(), tcp + 4, &next), tcp + 8, &number.to_be_bytes())
    };
    for source_port in 1000..1020 {
        let syn = Packet { source_port, ..TCP4 }.frame();
        // Once a second one is left to the kernel.
        let answer =
            std::iter::repeat_with(|| run(&mut always, &syn)).find(|answer| answer.reason == "syn_cookie");
        let answer = answer.expect("without end").packet_out;
        let cookie = u32::from_be_bytes(answer[tcp + 4..tcp + 8].try_into().expect("four bytes"));
        assert_eq!(run(&mut auto, &syn).reason, "deliver", "{source_port}");
        let ack = ack(source_port, cookie.wrapping_add(1));
        assert_eq!(run(&mut auto, &ack).reason, "deliver", "{source_port}");
    }
    let mut made_up = (2000..3000).map(|source_port| {
        let reason = run(&mut auto, &Packet { source_port, ..TCP4 }.frame()).reason;
        run(&mut auto, &ack(source_port, 77));
        reason
    });
    assert!(made_up.any(|reason| reason == "syn_cookie"));
}
