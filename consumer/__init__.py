"""BNPL shadow scoring: what a transaction meets, in the order it meets it.

A checkout's transaction arrives on a Kafka topic as Avro bytes. `contracts` turns a batch of them into columns and
sets aside what cannot be used. `scoring` lets the business rules decide, makes 36 features and asks every model: all
of it plain functions over columns, without I/O. `services` reads, publishes and stores, exactly once; `watch` shows how
they fare. `evaluation` and `champion` say, weeks later, which model should decide, and make it champion. `stack` is the
Kafka and ClickHouse that run on a laptop, `research` makes the models, `system` puts everything together, `cli` is
the command.

A module imports only from its own folder or one before it:

    settings errors clock …       ground
    contracts                     bytes ↔ columns, and what may be let in
    scoring                       rules, features, models: pure
    evaluation                    from outcomes to a verdict: statistics, pure
    stack                         Kafka and ClickHouse on this machine
    services                      score, sink, produce, and what they share
    watch                         lag, health, check, trace, reconcile, letters: what operators look at
    champion                      evaluate what is stored, keep dossiers, promote, roll back, kill
    research                      simulate, train, export, adopt
    system                        run, demo, bench, replay of dead letters
    cli                           bnpl-shadow
"""
