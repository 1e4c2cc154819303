use rtc::rtp;
use rtc::shared::marshal::Unmarshal;
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};

use super::super::packet::{ExtensionWriter, Rewrite, write_header};
use super::*;

fn profiles() -> [ProtectionProfile; 3] {
    [
        ProtectionProfile::AeadAes128Gcm,
        ProtectionProfile::AeadAes256Gcm,
        ProtectionProfile::Aes128CmHmacSha1_80,
    ]
}

fn keys(profile: ProtectionProfile) -> (Keys, Keys) {
    let salt = profile.salt_len();
    let bytes = |seed: u8, len: usize| (0..len).map(|i| seed ^ i as u8).collect::<Vec<u8>>();
    let a = Keys {
        profile,
        local_key: bytes(1, profile.key_len()),
        local_salt: bytes(90, salt),
        remote_key: bytes(33, profile.key_len()),
        remote_salt: bytes(200, salt),
    };
    let b = Keys {
        profile,
        local_key: a.remote_key.clone(),
        local_salt: a.remote_salt.clone(),
        remote_key: a.local_key.clone(),
        remote_salt: a.local_salt.clone(),
    };
    (a, b)
}

fn pair(profile: ProtectionProfile) -> (Srtp, Srtp) {
    let provider = rtc::crypto::default_provider().unwrap();
    let (a, b) = keys(profile);
    (
        Srtp::new(a, provider.clone()).unwrap(),
        Srtp::new(b, provider).unwrap(),
    )
}

fn packet(ssrc: u32, sequence: u16) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(
        &mut out,
        &Rewrite {
            marker: false,
            payload_type: 96,
            sequence,
            timestamp: 1,
            ssrc,
        },
    );
    let mut w = ExtensionWriter::new(&mut out, false);
    w.push(1, b"0");
    w.finish();
    out.extend_from_slice(b"secret");
    out
}

fn seal(s: &mut Srtp, clear: &[u8], index: u64) -> Vec<u8> {
    let h = Header::parse(clear).unwrap();
    // Something of someone else is before it.
    let mut out = b"before".to_vec();
    out.extend_from_slice(clear);
    s.seal_rtp(&mut out, 6, h.header_len, h.ssrc, index).unwrap();
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

fn open(s: &mut Srtp, sealed: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut packet = sealed.to_vec();
    let header = Header::parse(sealed).unwrap();
    let len = s.open_rtp(&mut packet, &header)?;
    packet.truncate(len);
    Ok(packet)
}

#[test]
fn sealed_opens_once_and_only_unharmed() {
    for profile in profiles() {
        let (mut a, mut b) = pair(profile);
        let clear = packet(5, 1);
        let sealed = seal(&mut a, &clear, 1);
        assert_ne!(&sealed[..clear.len()], &clear[..]);
        for at in [1, sealed.len() - 1, clear.len() - 1] {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(open(&mut b, &bad), Err(SrtpError::Authentication));
        }
        assert_eq!(open(&mut b, &sealed).unwrap(), clear);
        assert_eq!(open(&mut b, &sealed), Err(SrtpError::Replay));
    }
}

#[test]
fn no_prefix_of_a_packet_panics() {
    for profile in profiles() {
        let (mut a, mut b) = pair(profile);
        let sealed = seal(&mut a, &packet(5, 1), 1);
        for len in 0..sealed.len() {
            if Header::parse(&sealed[..len]).is_some() {
                assert!(open(&mut b, &sealed[..len]).is_err());
            }
            assert!(b.open_rtcp(&mut sealed[..len].to_vec()).is_err());
            assert!(a.seal_rtcp(&mut Vec::new(), 0).is_err());
        }
    }
}

#[test]
fn forged_sources_leave_no_trace() {
    for profile in profiles() {
        let (mut a, mut b) = pair(profile);
        for ssrc in 0..1000 {
            let mut forged = packet(ssrc, 1);
            forged.extend_from_slice(&[0x80; 20]);
            assert!(open(&mut b, &forged).is_err());
            assert!(b.open_rtcp(&mut forged).is_err());
        }
        match &b.contexts {
            Contexts::Gcm(g) => assert_eq!(g.admitted(), 0),
            Contexts::Library(l) => assert_eq!(l.admitted(), 0),
        }
        let sealed = seal(&mut a, &packet(77, 2), 2);
        assert!(open(&mut b, &sealed).is_ok());
    }
}

#[test]
fn sources_are_bounded() {
    for profile in profiles() {
        let (mut a, mut b) = pair(profile);
        for ssrc in 0..SOURCES as u32 {
            let sealed = seal(&mut a, &packet(ssrc, 2), 2);
            assert!(open(&mut b, &sealed).is_ok());
        }
        let sealed = seal(&mut a, &packet(9999, 2), 2);
        assert_eq!(open(&mut b, &sealed), Err(SrtpError::TooManySources));
        let sealed = seal(&mut a, &packet(7, 3), 3);
        assert!(open(&mut b, &sealed).is_ok());
    }
}

#[test]
fn odd_extension_padding_opens() {
    for profile in profiles() {
        let (mut a, mut b) = pair(profile);
        // Id 15 ends the block early: a re-serialised header would be shorter than the real one.
        let mut clear = vec![0x90, 96, 0, 9, 0, 0, 0, 1, 0, 0, 0, 8, 0xBE, 0xDE, 0, 2];
        clear.extend_from_slice(&[0x10, b'0', 0xF0, 0, 0, 0, 0, 0]);
        clear.extend_from_slice(b"secret");
        let sealed = seal(&mut a, &clear, 9);
        assert_eq!(open(&mut b, &sealed).unwrap(), clear);
    }
}

fn library(keys: &Keys, ours: bool) -> Context {
    let provider = rtc::crypto::default_provider().unwrap();
    let (key, salt) = if ours {
        (&keys.local_key, &keys.local_salt)
    } else {
        (&keys.remote_key, &keys.remote_salt)
    };
    Context::new(
        key,
        salt,
        keys.profile,
        Some(srtp_replay_protection(256)),
        Some(srtcp_replay_protection(256)),
        provider.crypto(),
    )
    .unwrap()
}

/// Over several cycles, with what is late and what is lost around each of them.
#[test]
fn the_library_and_we_open_each_others_rtp() {
    for profile in profiles() {
        let provider = rtc::crypto::default_provider().unwrap();
        let (a, b) = keys(profile);
        let mut ours = Srtp::new(a.clone(), provider).unwrap();
        let (mut their_in, mut their_out) = (library(&b, false), library(&b, true));
        // Towards us their counter runs on its own; towards them ours is in the index.
        let order = (0..140_000_u64).filter(|i| i % 13 != 5);
        let mut late: Option<u64> = None;
        for index in order {
            // The middle of each cycle in larger steps.
            if (200..65_300).contains(&(index % 65_536)) && index % 97 != 0 {
                continue;
            }
            if index % 11 == 3 && late.is_none() {
                late = Some(index);
                continue;
            }
            for index in std::iter::once(index).chain(late.take()) {
                let clear = packet(5, index as u16);
                let sealed = seal(&mut ours, &clear, index);
                assert_eq!(
                    their_in.decrypt_rtp(&sealed).map_err(|e| e.to_string()),
                    Ok(clear.as_slice().into()),
                    "{index}"
                );
                let head = rtp::Header::unmarshal(&mut clear.as_slice()).unwrap();
                let theirs = their_out.encrypt_rtp_with_header(&clear, &head).unwrap();
                assert_eq!(open(&mut ours, &theirs), Ok(clear), "{index}");
            }
        }
    }
}

#[test]
fn the_library_and_we_open_each_others_rtcp() {
    let report = |ssrc: u32, words: u8| {
        let mut p = vec![0x80, 201, 0, words];
        p.extend_from_slice(&ssrc.to_be_bytes());
        p.resize(4 + 4 * usize::from(words), 7);
        p
    };
    for profile in profiles() {
        let provider = rtc::crypto::default_provider().unwrap();
        let (a, b) = keys(profile);
        let mut ours = Srtp::new(a.clone(), provider).unwrap();
        let (mut their_in, mut their_out) = (library(&b, false), library(&b, true));
        // In clear, with what could be a tag.
        let mut bare = report(9, 1);
        bare.extend_from_slice(&[0; 30]);
        assert_eq!(ours.open_rtcp(&mut bare), Err(SrtpError::Authentication));
        for i in 0..50_u8 {
            let clear = report(u32::from(i % 3), 1 + i);
            let mut sealed = b"before".to_vec();
            sealed.extend_from_slice(&clear);
            ours.seal_rtcp(&mut sealed, 6).unwrap();
            assert_eq!(their_in.decrypt_rtcp(&sealed[6..]).unwrap(), clear);

            let theirs = their_out.encrypt_rtcp(&clear).unwrap();
            let mut bad = theirs.to_vec();
            bad[9] ^= 1;
            assert!(ours.open_rtcp(&mut bad).is_err());
            let mut packet = theirs.to_vec();
            let len = ours.open_rtcp(&mut packet).unwrap();
            assert_eq!(packet[..len], clear);
            assert_eq!(ours.open_rtcp(&mut theirs.to_vec()), Err(SrtpError::Replay));
        }
    }
}
