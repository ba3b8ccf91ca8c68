#[test]
fn dbg() {
    let (d, o) = crate::laws::state(&mut crate::choices::Choices::new(16951631693351181313));
    let p = rimward_core::fleet::plan(&d, &o, crate::fixtures::NOW);
    for k in ["a", "b", "c"].map(crate::fixtures::key) {
        if let Some(x) = d.deployments.get(&k) {
            println!(
                "DEP {k} ep {} created {} target {:?} cur {:?} paused {} deleting {} pl {:?}",
                x.endpoint_name, x.created, x.target, x.current, x.paused, x.deleting, x.placement
            );
        } else {
            println!("{k} unreadable {}", d.unreadable.contains(&k))
        }
        for (n, c) in &o.clusters {
            println!(
                "{n} gen {} {:?} paused {} held {:?}\n  entry {:?}\n  report {:?} {:?}\n  => {:?}",
                c.generation,
                c.connection,
                c.paused,
                c.held,
                c.entries.get(&k),
                c.report.as_ref().map(|r| r.observed_generation),
                c.report.as_ref().and_then(|r| r.models.get(&k)),
                p.clusters[n].get(&k)
            );
        }
        if let Some(x) = p.deployments.get(&k) {
            println!("{:?} {:?}", x.transitions, x.refusals);
        }
    }
}
