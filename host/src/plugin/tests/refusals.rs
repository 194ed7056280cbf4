//! Components that are refused, each in one sentence.

use super::*;

#[test]
fn a_plugin_that_is_none_is_refused_in_one_sentence() {
    let check = |bytes: &[u8], words: &[&str]| {
        let sentence = Bench::new().file("odd", bytes).refusal();
        assert!(sentence.contains("plugin `odd`"), "{sentence}");
        for word in words {
            assert!(sentence.contains(word), "{word:?} in: {sentence}");
        }
    };
    let text = |text: &str| wat::parse_str(text).unwrap();
    let other = |from: &str, to: &str| text(&Hostile::new().text().replace(from, to));
    check(b"\x7fELF", &["is not WebAssembly"]);
    check(b"", &["is not WebAssembly"]);
    check(b"(component)", &["WebAssembly as text", "wasm-tools parse"]);
    check(b"\0asm\x0d\0\x01\0\xff", &["damaged"]);
    check(&text("(module)"), &["core module", "wasm-tools component new"]);
    check(&text("(component)"), &["no plugin of whodunit", "reporter-plugin"]);
    check(
        &other("@0.1.0", "@0.2.0"),
        &["built for whodunit:plugin@0.2.0", "speaks whodunit:plugin@0.1.0"],
    );
    check(&other("plugin/reporter@", "plugin/filter@"), &["not a valid filter"]);
    check(
        &other("plugin/reporter@", "plugin/explainer@"),
        &["not a valid explainer", "does not have export `explain`"],
    );
    check(
        &other("(component\n", "(component (import \"wasi:cli/stdout@0.2.0\" (instance))\n"),
        &["wants `wasi:cli/stdout@0.2.0`", "`wasi = \"p2\"`", "or `wasi = \"stub\"`"],
    );
    check(
        &other("(component\n", "(component (import \"acme:db/sql@1.0.0\" (instance))\n"),
        &["wants `acme:db/sql@1.0.0`", "sandbox does not give"],
    );
    // The right names with the wrong types behind them.
    check(&other("\"on-tick\" (func", "\"on-tock\" (func"), &["not a valid reporter"]);
    check(
        &other("(field \"sequence\" u64)", "(field \"sequence\" u32)"),
        &["not a valid reporter"],
    );
}

#[test]
fn a_source_that_is_not_there_is_refused_in_one_sentence() {
    let refusal = |source: PluginSource| {
        let mut bench = Bench::new();
        let plugin = bench.plugin("odd", source);
        bench.plugins.push(plugin);
        bench.refusal()
    };
    let sentence = refusal(PluginSource::File("/nowhere/plugin.wasm".into()));
    assert!(sentence.contains("`odd`: /nowhere/plugin.wasm does not exist"), "{sentence}");
    let sentence = refusal(PluginSource::File("/proc".into()));
    assert!(sentence.contains("cannot be read"), "{sentence}");
    let sentence = refusal(PluginSource::File("/dev/zero".into()));
    assert!(sentence.contains("larger than 64 MiB"), "{sentence}");
    let sentence = refusal(PluginSource::Builtin("report-jason".into()));
    assert!(sentence.contains("no `builtin:report-jason`; there is builtin:report-json"));
}

#[test]
fn a_configuration_that_the_plugin_refuses_stops_the_daemon_with_its_sentence() {
    let mut bench = Bench::new().neighbour();
    bench.plugins[0].config = json!({ "max_end": 3 });
    let sentence = bench.refusal();
    assert!(sentence.contains("plugin `neighbour` does not start"), "{sentence}");
    assert!(sentence.contains("unknown field `max_end`"), "{sentence}");
}

#[test]
fn a_plugin_that_capture_would_wait_for_is_refused_also_in_the_place_of_another() {
    let component = Hostile::new().component();
    let blocks = |plugin: &mut Plugin| plugin.overflow = config::Overflow::Block;
    let sentence = Bench::new().file("hostile", &component).change(blocks).refusal();
    assert!(sentence.contains("`whodunit replay`"), "{sentence}");
    let running = Bench::new().neighbour().file("hostile", &component).start();
    let mut plugins = running.bench.plugins.clone();
    blocks(&mut plugins[1]);
    let refused = running.host.apply(&plugins).unwrap_err().to_string();
    assert!(refused.contains("`whodunit replay`"), "{refused}");
    running.batch(&["/a"]);
    running.stop_and_check_neighbour(&["/a"], 1);
}

#[test]
fn a_granted_stub_answers_with_nothing() {
    let text = Hostile::on_start(
        "(i32.store (i32.const 3004) (i32.const 9))
         (call $environment (i32.const 3000))
         (if (i32.load (i32.const 3004)) (then (unreachable)))
         (drop (call $get-stdout))
         (i32.store8 (i32.const 3000) (i32.const 0))
         (call $flush (call $get-stdout) (i32.const 3000))
         (if (i32.eqz (i32.load8_u (i32.const 3000))) (then (unreachable)))",
    )
    .text()
    .replace(
        "(component\n",
        "(component
          (import \"wasi:cli/environment@0.2.3\" (instance $env
            (export \"get-environment\" (func (result (list (tuple string string)))))))
          (import \"wasi:cli/stdout@0.2.3\" (instance $stdout
            (export \"output-stream\" (type $stream (sub resource)))
            (type $e (variant (case \"last-operation-failed\" u32) (case \"closed\")))
            (export \"stream-error\" (type $error (eq $e)))
            (export \"flush\" (func (param \"self\" (borrow $stream))
              (result (result (error $error)))))
            (export \"get-stdout\" (func (result (own $stream))))))\n",
    )
    .replace(
        "(core module $main\n",
        "(alias export $env \"get-environment\" (func $get-environment))
         (alias export $stdout \"get-stdout\" (func $stdout-get))
         (alias export $stdout \"flush\" (func $stdout-flush))
         (core func $environment (canon lower (func $get-environment)
           (memory (core memory $memory)) (realloc (core func $realloc))))
         (core func $get-stdout (canon lower (func $stdout-get)))
         (core func $flush (canon lower (func $stdout-flush) (memory (core memory $memory))))
         (core module $main
           (import \"host\" \"environment\" (func $environment (param i32)))
           (import \"host\" \"get-stdout\" (func $get-stdout (result i32)))
           (import \"host\" \"flush\" (func $flush (param i32 i32)))\n",
    )
    .replace(
        "(export \"log\" (func $log))",
        "(export \"log\" (func $log)) (export \"environment\" (func $environment))
         (export \"get-stdout\" (func $get-stdout)) (export \"flush\" (func $flush))",
    );
    let component = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"));
    let sentence = Bench::new().file("odd", &component).refusal();
    assert!(
        sentence.contains("`wasi:cli/environment@0.2.3`, `wasi:cli/stdout@0.2.3`"),
        "{sentence}"
    );
    let running = Bench::new()
        .neighbour()
        .file("hostile", &component)
        .change(|plugin| plugin.wasi = config::Wasi::Stub)
        .start();
    running.batch(&["/a"]);
    let status = running.stop_and_check_neighbour(&["/a"], 1);
    assert_eq!(status.last_error, None);
    assert_eq!((status.events, status.instance, status.faults), (1, 1, Faults::default()));
}

/// A reporter that imports of each capability of the system interface, and does this when it starts.
fn of_the_system(code: &str) -> Vec<u8> {
    let text = Hostile::on_start(code)
        .text()
        .replace(
            "(component\n",
            "(component
              (import \"wasi:io/streams@0.2.3\" (instance $streams
                (export \"output-stream\" (type $stream (sub resource)))
                (type $e (variant (case \"last-operation-failed\" u32) (case \"closed\")))
                (export \"stream-error\" (type $error (eq $e)))
                (export \"[method]output-stream.blocking-write-and-flush\"
                  (func (param \"self\" (borrow $stream)) (param \"contents\" (list u8))
                    (result (result (error $error)))))))
              (alias export $streams \"output-stream\" (type $of-streams))
              (import \"wasi:cli/stdout@0.2.3\" (instance $stdout
                (alias outer 1 $of-streams (type $outer))
                (export \"output-stream\" (type $stream (eq $outer)))
                (export \"get-stdout\" (func (result (own $stream))))))
              (import \"wasi:random/random@0.2.3\" (instance $random
                (export \"get-random-u64\" (func (result u64)))))
              (import \"wasi:clocks/monotonic-clock@0.2.3\" (instance $clock
                (export \"now\" (func (result u64)))))
              (import \"wasi:cli/environment@0.2.3\" (instance $env
                (export \"get-environment\" (func (result (list (tuple string string)))))))
              (import \"wasi:filesystem/types@0.2.3\" (instance $files
                (export \"descriptor\" (type $file (sub resource)))))
              (alias export $files \"descriptor\" (type $of-files))
              (import \"wasi:filesystem/preopens@0.2.3\" (instance $preopens
                (alias outer 1 $of-files (type $outer))
                (export \"descriptor\" (type $file (eq $outer)))
                (export \"get-directories\" (func (result (list (tuple (own $file) string)))))))\n",
        )
        .replace(
            "(core module $main\n",
            "(alias export $streams \"[method]output-stream.blocking-write-and-flush\" (func $write-to))
             (alias export $stdout \"get-stdout\" (func $stdout-get))
             (alias export $random \"get-random-u64\" (func $a-number))
             (alias export $clock \"now\" (func $a-time))
             (core func $write (canon lower (func $write-to) (memory (core memory $memory))))
             (core func $get-stdout (canon lower (func $stdout-get)))
             (core func $random (canon lower (func $a-number)))
             (core func $now (canon lower (func $a-time)))
             (alias export $env \"get-environment\" (func $get-environment))
             (alias export $preopens \"get-directories\" (func $get-directories))
             (core func $environment (canon lower (func $get-environment)
               (memory (core memory $memory)) (realloc (core func $realloc))))
             (core func $folders (canon lower (func $get-directories)
               (memory (core memory $memory)) (realloc (core func $realloc))))
             (core module $main
               (import \"host\" \"write-to\" (func $write-to (param i32 i32 i32 i32)))
               (import \"host\" \"get-stdout\" (func $get-stdout (result i32)))
               (import \"host\" \"random\" (func $random (result i64)))
               (import \"host\" \"now\" (func $now (result i64)))
               (import \"host\" \"environment\" (func $environment (param i32)))
               (import \"host\" \"folders\" (func $folders (param i32)))\n",
        )
        .replace(
            "(export \"log\" (func $log))",
            "(export \"log\" (func $log)) (export \"write-to\" (func $write))
             (export \"get-stdout\" (func $get-stdout)) (export \"random\" (func $random))
             (export \"now\" (func $now)) (export \"environment\" (func $environment))
             (export \"folders\" (func $folders))",
        );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

/// What is granted, the grant, and code that dies unless it is there.
type Needed = (&'static str, fn(&mut config::Grants), &'static str);

const NEEDED: [Needed; 5] = [
    ("clocks", |grants| grants.clocks = true, "(if (i64.eqz (call $now)) (then (unreachable)))"),
    (
        "random",
        |grants| grants.random = true,
        "(if (i64.eq (call $random) (call $random)) (then (unreachable)))",
    ),
    (
        "output",
        |grants| grants.output = true,
        "(i32.store8 (i32.const 3000) (i32.const 9))
         (call $write-to (call $get-stdout) (i32.const 1024) (i32.const 6) (i32.const 3000))
         (if (i32.load8_u (i32.const 3000)) (then (unreachable)))",
    ),
    (
        "environment",
        |grants| grants.environment = vec!["PATH".to_owned()],
        "(call $environment (i32.const 3000))
         (if (i32.ne (i32.load (i32.const 3004)) (i32.const 1)) (then (unreachable)))",
    ),
    (
        "folders",
        |grants| grants.folders = [("/rules".to_owned(), "/etc".into())].into(),
        "(call $folders (i32.const 3000))
         (if (i32.ne (i32.load (i32.const 3004)) (i32.const 1)) (then (unreachable)))",
    ),
];

/// A plugin that dies unless it gets what it needs, with these grants.
fn needing(code: &str, grants: config::Grants) -> Running {
    let bench = Bench::new().neighbour().file("hostile", &of_the_system(code));
    let bench = bench.change(|plugin| {
        plugin.wasi = config::Wasi::P2;
        plugin.grants = grants;
    });
    bench.start()
}

#[test]
fn each_capability_is_there_with_its_own_grant_alone_and_not_with_all_the_others() {
    for (name, grant, code) in NEEDED {
        let mut grants = config::Grants::default();
        grant(&mut grants);
        let running = needing(code, grants);
        running.batch(&["/a"]);
        let status = running.stop_and_check_neighbour(&["/a"], 1);
        let lived = (status.last_error, status.instance, status.faults);
        assert_eq!(lived, (None, 1, Faults::default()), "{name}");

        let mut grants = config::Grants::default();
        let others = NEEDED.into_iter().filter(|(other, _, _)| *other != name);
        others.for_each(|(_, grant, _)| grant(&mut grants));
        let running = needing(code, grants);
        let status = running.wait_for("hostile", |status| status.faults.trap > 0);
        assert!(status.last_error.is_some(), "{name}");
        running.stop();
    }
}

#[test]
fn a_component_that_imports_the_system_is_refused_unless_its_table_says_what_it_gets() {
    let component = of_the_system("");
    let sentence = Bench::new().file("odd", &component).refusal();
    for words in ["`wasi:cli/stdout@0.2.3`", "`wasi = \"p2\"`", "`whodunit plugin inspect` prints"]
    {
        assert!(sentence.contains(words), "{words:?} in: {sentence}");
    }
    let bench = Bench::new().file("odd", &component);
    let sentence = bench.change(|plugin| {
        plugin.wasi = config::Wasi::P2;
        plugin.grants.folders = [("/rules".to_owned(), "/nowhere/rules".into())].into();
    });
    let sentence = sentence.refusal();
    assert!(sentence.contains("the folder /nowhere/rules, which `grants.folders`"), "{sentence}");
}

#[test]
fn a_passport_has_the_grants_that_a_component_asks_for_and_is_accepted_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let toml_of = |component: &[u8]| {
        let file = folder.path().join("odd.wasm");
        fs::write(&file, component).unwrap();
        let plugin = Plugin::new("odd".to_owned(), PluginSource::File(file));
        let passport = passport(&plugin, &folder.path().join("cache")).unwrap();
        assert_eq!((passport.accepted, passport.refusal), (true, None));
        let table: Vec<String> = passport.toml.lines().skip(3).map(str::to_owned).collect();
        table.join("\n")
    };
    assert_eq!(
        toml_of(&of_the_system("")),
        "wasi = \"p2\"\n\
         grants = { clocks = true, random = true, output = true, environment = [], folders = {} }"
    );
    assert_eq!(toml_of(&Hostile::new().component()), "");
}
