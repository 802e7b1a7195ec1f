//! Reads a JSON-SEQ trace with quiche's qlog crate and prints what it understood, as JSON lines:
//! the file's header, then every event that is one of the crate's types, written out by the crate.
//! An event that it knows only as JSON is printed with a member `unread`, why.

use std::{env, fs::File, io::BufReader};

use qlog::events::Event as Native;
use qlog::reader::{Event, QlogSeqReader};

fn main() {
    let path = env::args().nth(1).expect("a file name");
    let file = File::open(path).expect("a readable file");
    let reader = QlogSeqReader::new(Box::new(BufReader::new(file))).expect("a JSON-SEQ trace");
    println!("{}", serde_json::to_string(&reader.qlog).unwrap());
    for event in reader {
        match event {
            Event::Qlog(event) => println!("{}", serde_json::to_string(&event).unwrap()),
            Event::Json(event) => {
                let mut value = serde_json::to_value(&event).unwrap();
                let why = serde_json::from_value::<Native>(value.clone()).unwrap_err();
                value["unread"] = why.to_string().into();
                println!("{value}");
            }
        }
    }
}
