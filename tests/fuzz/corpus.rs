//! `corpus unpack TARGET FOLDER` writes what is kept for a target, and the frames of the vectors, as files for the
//! fuzzer; `corpus pack TARGET FOLDER` keeps the smallest of the files of a folder, each line of the target's file one
//! input in hexadecimal.

use std::{collections::BTreeSet, env, fs, path::Path};

use serde_json::Value;

const MAX_BYTES: usize = 256;
const MAX_INPUTS: usize = 400;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let [what, target, folder] = words.as_slice() else { panic!("say: corpus unpack|pack TARGET FOLDER") };
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../protocol/vectors");
    let kept = vectors.join(format!("fuzz/{target}.hex"));
    match what.as_str() {
        "unpack" => {
            fs::create_dir_all(folder).unwrap();
            let lines = fs::read_to_string(&kept).unwrap_or_default();
            let inputs = lines.lines().map(bytes).chain(seeds(&vectors, target));
            for (number, input) in inputs.enumerate() {
                fs::write(Path::new(folder).join(format!("seed-{number}")), input).unwrap();
            }
        }
        "pack" => {
            let files = fs::read_dir(folder).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
            let sorted: BTreeSet<(usize, Vec<u8>)> =
                files.filter(|input| input.len() <= MAX_BYTES).map(|input| (input.len(), input)).collect();
            let step = sorted.len().div_ceil(MAX_INPUTS).max(1);
            let lines: Vec<String> = sorted.into_iter().step_by(step).map(|(_, input)| hex(&input) + "\n").collect();
            fs::create_dir_all(kept.parent().unwrap()).unwrap();
            fs::write(&kept, lines.concat()).unwrap();
        }
        other => panic!("{other} is neither unpack nor pack"),
    }
}

/// The inputs of the hand-written vectors.
fn seeds(vectors: &Path, target: &str) -> Vec<Vec<u8>> {
    let file = match target {
        "v1" | "v2_text" | "v2_binary" => target,
        "long_poll" => "v2_text",
        _ => return vec![b"vsn=2.0.0&user_id=u%20+1&a[b][c]=d&a[]=e&x&%zz=%".to_vec()],
    };
    let text = fs::read_to_string(vectors.join(format!("frames/{file}.json"))).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let of = |key: &str| cases[key].as_array().unwrap().clone().into_iter();
    let inputs = of("decode").chain(of("refuse")).map(|case| match (&case["text"], &case["hex"], &case) {
        (Value::String(text), _, _) => text.clone().into_bytes(),
        (_, Value::String(hex), _) => bytes(hex),
        (_, _, Value::String(text)) if file == "v2_binary" => bytes(text),
        (_, _, Value::String(text)) => text.clone().into_bytes(),
        _ => panic!("{case}"),
    });
    let mut inputs: Vec<_> = inputs.collect();
    if target == "long_poll" {
        inputs.push(inputs.join(&b'\n'));
        inputs.push(b"AAEBBgMxMnJvb206MWJpbgECAw==\n[\"1\",\"2\",\"t\",\"e\",{}]\n!!\n".to_vec());
    }
    inputs
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
