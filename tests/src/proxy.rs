//! A TCP proxy in front of a door, which a test can cut: another address of the same collector.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// One address; what comes there goes to the door, while it is open.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    open: AtomicBool,
    taken: AtomicUsize,
    connections: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Stands before `door` (`https://HOST:PORT`), open.
    pub fn before(door: &str) -> Self {
        let to = door
            .trim_start_matches("https://")
            .trim_end_matches('/')
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let shared = Arc::new(Shared {
            open: AtomicBool::new(true),
            taken: AtomicUsize::new(0),
            connections: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Cut: whoever comes is turned away at once.
                if serving.open.load(Ordering::SeqCst) {
                    serving.taken.fetch_add(1, Ordering::SeqCst);
                    connect(&serving, stream, &to);
                }
            }
        });
        Self { address, shared }
    }

    /// `https://HOST:PORT` of the proxy.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Connections that it has let through.
    pub fn taken(&self) -> usize {
        self.shared.taken.load(Ordering::SeqCst)
    }

    /// Ends every connection, and takes no more.
    pub fn cut(&self) {
        self.shared.open.store(false, Ordering::SeqCst);
        for stream in self.shared.connections.lock().expect("streams").drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    /// Takes connections again.
    pub fn open(&self) {
        self.shared.open.store(true, Ordering::SeqCst);
    }
}

fn connect(shared: &Shared, from: TcpStream, to: &str) {
    let Ok(door) = TcpStream::connect(to) else {
        return;
    };
    let pairs = [
        (from.try_clone(), door.try_clone()),
        (door.try_clone(), from.try_clone()),
    ];
    shared
        .connections
        .lock()
        .expect("streams")
        .extend([from, door]);
    for (read, write) in pairs {
        let (Ok(mut read), Ok(mut write)) = (read, write) else {
            return;
        };
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(length @ 1..) = read.read(&mut buffer) {
                if write.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            write.shutdown(Shutdown::Both).ok();
        });
    }
}
