//! Programs, run by hand and by the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

/// An interpreter of what programs are made of.
fn run(program: &[Instruction], packet: &[u8]) -> u32 {
    let (mut at, mut a, mut x) = (0, 0_u32, 0_u32);
    let load = |offset: u32, len: usize| {
        let offset = offset.wrapping_sub(HEADER) as usize;
        let bytes = &packet[offset..offset + len];
        bytes.iter().fold(0, |sum, b| sum << 8 | u32::from(*b))
    };
    loop {
        let i = program[at];
        at += 1;
        match i.code {
            LOAD_BYTE => a = load(i.value, 1),
            LOAD_HALF => a = load(i.value, 2),
            LOAD_WORD => a = load(i.value, 4),
            LOAD_HALF_AT_X => a = load(i.value.wrapping_add(x), 2),
            MULTIPLY => a = a.wrapping_mul(i.value),
            AND => a &= i.value,
            SHIFT_LEFT => a <<= i.value,
            SHIFT_RIGHT => a >>= i.value,
            ADD_X => a = a.wrapping_add(x),
            TO_X => x = a,
            JUMP => at += i.value as usize,
            IF_EQUAL => at += usize::from(if a == i.value { i.yes } else { i.no }),
            IF_AT_LEAST => at += usize::from(if a >= i.value { i.yes } else { i.no }),
            RETURN => return i.value,
            other => panic!("{other:#x}"),
        }
    }
}

/// The headers of a datagram. `options`: words of IPv4's header beyond the usual.
fn headers(from: SocketAddr, options: u8) -> Vec<u8> {
    let mut packet = match from.ip() {
        IpAddr::V4(ip) => {
            let mut header = vec![0; 20 + usize::from(options) * 4];
            header[0] = 0x45 + options;
            header[9] = 17;
            header[12..16].copy_from_slice(&ip.octets());
            header
        }
        IpAddr::V6(ip) => {
            let mut header = vec![0; 40];
            header[0] = 0x60;
            header[6] = 17;
            header[8..24].copy_from_slice(&ip.octets());
            header
        }
    };
    packet.extend_from_slice(&from.port().to_be_bytes());
    packet.extend_from_slice(&[0; 6]);
    packet
}

fn sender(i: u32) -> SocketAddr {
    let port = (i.wrapping_mul(7919) >> 3) as u16;
    if i.is_multiple_of(3) {
        let ip = Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(i.wrapping_mul(SPREAD)));
        SocketAddr::from((ip, port))
    } else {
        SocketAddr::from((Ipv4Addr::from(0x0A00_0000 + i % 50), port))
    }
}

fn shard(i: usize) -> Shard {
    Shard::new(i).unwrap()
}

fn senders(count: u32, shards: usize) -> Senders {
    let mut known = Senders::default();
    for i in 0..count {
        known.apply(Change {
            shard: shard((i.wrapping_mul(SPREAD) >> 16) as usize % shards),
            sender: sender(i),
            there: true,
        });
    }
    known
}

#[test]
fn each_sender_is_led_to_its_shard() {
    for count in [1, 2, 3, 10, 300, 1_500] {
        let known = senders(count, 5);
        let program = known.program(RANGES);
        // Two may share a number: the kernel must do as the table says, not as one of the two would like.
        let ranges: HashMap<u32, Shard> = known.ranges(usize::MAX).into_iter().collect();
        let mut wrong = 0;
        for (sender, shard) in &known.0 {
            let got = run(&program, &headers(*sender, 0));
            if sender.is_ipv4() {
                assert_eq!(run(&program, &headers(*sender, 3)), got);
            }
            wrong += usize::from(got != shard.index() as u32);
        }
        assert!(wrong * 100 <= known.0.len(), "{wrong} of {}", known.0.len());
        assert!(ranges.len() <= known.0.len());
        // Somebody unknown gets to some shard.
        assert!(run(&program, &headers(sender(9_999_999), 0)) < 5);
    }
    // A header beyond the first is not looked through.
    let mut packet = headers(SocketAddr::from((Ipv6Addr::LOCALHOST, 1)), 0);
    packet[6] = 43;
    assert_eq!(run(&senders(5, 2).program(RANGES), &packet), ANY);
}

#[test]
fn a_program_is_never_longer_than_the_kernel_takes() {
    for (count, shards) in [(0, 1), (1, 1), (2_000, 64), (20_000, 64)] {
        let program = senders(count, shards).program(RANGES);
        assert!(program.len() <= 4096, "{} for {count}", program.len());
        for (at, i) in program.iter().enumerate() {
            let far = match i.code {
                JUMP => i.value as usize,
                IF_EQUAL | IF_AT_LEAST => usize::from(i.yes.max(i.no)),
                _ => continue,
            };
            assert!(at + 1 + far < program.len());
        }
    }
    // One shard needs no search, however many senders it has.
    assert_eq!(search(&senders(500, 1).ranges(RANGES)).len(), 1);
}

#[test]
fn a_sender_is_forgotten_by_the_shard_that_has_it() {
    let mut known = Senders::default();
    let change = |i, there| Change {
        shard: shard(i),
        sender: sender(1),
        there,
    };
    known.apply(change(0, true));
    known.apply(change(1, true));
    known.apply(change(0, false));
    assert_eq!(known.0.get(&sender(1)), Some(&shard(1)));
    known.apply(change(1, false));
    assert_eq!(known.program(RANGES), [ret(ANY)]);
}

#[test]
fn a_kernel_that_takes_less_gets_less_and_one_that_takes_none_is_left_alone() {
    let told = |most: usize| {
        let (changes, queue) = channel();
        for i in 0..500 {
            let (shard, sender) = (shard(i as usize % 2), sender(i));
            let there = true;
            changes.send(Change { shard, sender, there }).unwrap();
        }
        let lengths = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let lengths = &lengths;
            let keeper = scope.spawn(move || {
                keep(&queue, |program| {
                    lengths.lock().unwrap().push(program.len());
                    if program.len() > most {
                        return Err(io::ErrorKind::OutOfMemory.into());
                    }
                    Ok(())
                });
            });
            let tried = || lengths.lock().unwrap().last().is_some_and(|len| *len <= most);
            while !keeper.is_finished() && !tried() {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(changes);
        });
        lengths.into_inner().unwrap()
    };
    let some = told(300);
    assert!(some.len() > 1 && some.is_sorted_by(|a, b| a >= b), "{some:?}");
    assert!(told(0).len() > 1);
}

/// Datagrams of clients to a shared port, and the socket that got each.
#[cfg(target_os = "linux")]
fn steered(listen: &str, from: &str, to: &str) {
    const SHARDS: usize = 3;
    let sockets = crate::net::bind_shared(listen.parse().unwrap(), SHARDS).unwrap();
    assert_eq!(sockets.len(), SHARDS);
    let port = sockets[0].local_addr().unwrap().port();
    let clients: Vec<UdpSocket> = (0..40).map(|_| UdpSocket::bind(from).unwrap()).collect();
    let mut known = Senders::default();
    let owner = |client: usize| shard(client * 7 % SHARDS);
    for (i, client) in clients.iter().enumerate() {
        // As the socket shows it that took the datagram.
        let mut sender = client.local_addr().unwrap();
        if let (IpAddr::V4(ip), true) = (sender.ip(), listen.starts_with('[')) {
            sender.set_ip(IpAddr::V6(ip.to_ipv6_mapped()));
        }
        let change = Change {
            shard: owner(i),
            sender,
            there: true,
        };
        known.apply(change);
    }
    attach_steering(&sockets[0], &known.program(RANGES)).unwrap();
    for (i, client) in clients.iter().enumerate() {
        client.send_to(&[i as u8], (to, port)).unwrap();
    }
    // Loopback: all are there.
    let mut count = 0;
    for (at, socket) in sockets.iter().enumerate() {
        let mut buffer = [0; 4];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let client = usize::from(buffer[0]);
            assert_eq!(at, owner(client).index(), "{listen}: {from}");
            assert_eq!(known.0.get(&from), Some(&owner(client)));
            count += 1;
        }
    }
    assert_eq!(count, clients.len());
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernel_gives_each_datagram_to_its_socket() {
    steered("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1");
    steered("0.0.0.0:0", "127.0.0.1:0", "127.0.0.1");
    if UdpSocket::bind("[::1]:0").is_ok() {
        steered("[::]:0", "[::1]:0", "::1");
        steered("[::]:0", "127.0.0.1:0", "127.0.0.1");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_port_is_shared_with_nobody_else() {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let sockets = crate::net::bind_shared(address, 2).unwrap();
    let taken = sockets[0].local_addr().unwrap();
    for count in [1, 2] {
        let error = crate::net::bind_shared(taken, count).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
