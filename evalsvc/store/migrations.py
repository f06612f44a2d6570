"""The schema of the store, as an append-only list of migrations. A released migration is never edited.

    checkpoints  content digest, method, parent, cost
    findings     findings of the checks of a checkpoint
    changes      difference of a checkpoint's weights from its base's; `tensor_changes` by tensor
    arms         a checkpoint as served: with its numerics, merged or not, quantised or not
    plans        a suite with one rendering; `tasks` are its tasks, `plan_samples` its samples in order, `plan_files`
                 the files that it was built from
    samples      items, with document and gold; `requests` are the requests of the items; `document` is a number that is
                 the same for the same document in any task and prompt
    responses    one row per arm and request
    failures     requests that failed, with the error
    runs         one arm on one plan: queued, running, done or failed
    results      aggregated metrics of a run, with the levels on resampled documents of those that are no mean; `scores`
                 the values and answers per sample
    drift        KL divergence from the base for every token of a text
    matrices     imported scores of tasks that were learned one after the other
    decisions    decision records, chained by digest per base; `evidence` is a digest of base and suite versions

Arms, runs, samples and requests have integer keys beside their digests: 10 million rows with integer keys take a sixth
of the space, and joins are several times faster.
"""

from __future__ import annotations

MIGRATIONS: list[tuple[str, str]] = [
    (
        "m001_initial",
        """
        CREATE TABLE checkpoints (
            digest VARCHAR PRIMARY KEY,
            name VARCHAR NOT NULL,
            path VARCHAR NOT NULL,
            method VARCHAR NOT NULL,
            tokenizer VARCHAR NOT NULL,
            parent VARCHAR,
            base_path VARCHAR,
            step BIGINT,
            trajectory VARCHAR,
            gpu_hours DOUBLE,
            train_tokens BIGINT,
            peak_memory_gb DOUBLE,
            created TIMESTAMP NOT NULL
        );
        CREATE TABLE arms (
            arm INTEGER PRIMARY KEY,
            digest VARCHAR NOT NULL UNIQUE,
            checkpoint VARCHAR NOT NULL,
            numerics VARCHAR NOT NULL
        );
        CREATE TABLE plans (
            plan INTEGER PRIMARY KEY,
            digest VARCHAR NOT NULL UNIQUE,
            suite VARCHAR NOT NULL,
            role VARCHAR NOT NULL,
            description VARCHAR NOT NULL,
            suite_digest VARCHAR NOT NULL,
            suite_path VARCHAR NOT NULL,
            template VARCHAR,
            system_prompt VARCHAR,
            created TIMESTAMP NOT NULL
        );
        CREATE TABLE tasks (
            plan INTEGER NOT NULL,
            task VARCHAR NOT NULL,
            position INTEGER NOT NULL,
            task_group VARCHAR,
            version VARCHAR NOT NULL,
            output_type VARCHAR NOT NULL,
            shots INTEGER NOT NULL,
            metric VARCHAR NOT NULL,
            filter VARCHAR NOT NULL,
            aggregation VARCHAR NOT NULL,
            higher_is_better BOOLEAN NOT NULL,
            weight DOUBLE NOT NULL,
            chance DOUBLE,
            PRIMARY KEY (plan, task)
        );
        CREATE TABLE samples (
            sample INTEGER PRIMARY KEY,
            digest VARCHAR NOT NULL UNIQUE,
            task VARCHAR NOT NULL,
            doc_id BIGINT NOT NULL,
            doc VARCHAR NOT NULL,
            target VARCHAR NOT NULL,
            requests INTEGER[] NOT NULL
        );
        CREATE TABLE plan_samples (
            plan INTEGER NOT NULL,
            task VARCHAR NOT NULL,
            sample INTEGER NOT NULL
        );
        CREATE TABLE requests (
            request INTEGER PRIMARY KEY,
            digest VARCHAR NOT NULL UNIQUE,
            kind VARCHAR NOT NULL,
            arguments VARCHAR[] NOT NULL,
            repeat INTEGER NOT NULL
        );
        CREATE TABLE responses (
            arm INTEGER NOT NULL,
            request INTEGER NOT NULL,
            loglikelihood DOUBLE,
            greedy BOOLEAN,
            text VARCHAR,
            tokens INTEGER NOT NULL,
            truncated INTEGER NOT NULL,
            PRIMARY KEY (arm, request)
        );
        CREATE TABLE failures (
            arm INTEGER NOT NULL,
            request INTEGER NOT NULL,
            error VARCHAR NOT NULL,
            PRIMARY KEY (arm, request)
        );
        CREATE TABLE runs (
            run INTEGER PRIMARY KEY,
            arm INTEGER NOT NULL,
            plan INTEGER NOT NULL,
            state VARCHAR NOT NULL,
            requests INTEGER NOT NULL,
            answered INTEGER NOT NULL,
            failed INTEGER NOT NULL,
            error VARCHAR,
            driver VARCHAR,
            created TIMESTAMP NOT NULL,
            updated TIMESTAMP NOT NULL,
            UNIQUE (arm, plan)
        );
        CREATE TABLE results (
            run INTEGER NOT NULL,
            task VARCHAR NOT NULL,
            metric VARCHAR NOT NULL,
            filter VARCHAR NOT NULL,
            n INTEGER NOT NULL,
            value DOUBLE NOT NULL,
            stderr DOUBLE,
            higher_is_better BOOLEAN NOT NULL,
            is_primary BOOLEAN NOT NULL,
            is_group BOOLEAN NOT NULL
        );
        CREATE TABLE scores (
            run INTEGER NOT NULL,
            task VARCHAR NOT NULL,
            sample INTEGER NOT NULL,
            metric VARCHAR NOT NULL,
            filter VARCHAR NOT NULL,
            value DOUBLE,
            weight DOUBLE,
            detail VARCHAR
        );
        """,
    ),
    (
        "m002_checkpoints",
        """
        ALTER TABLE checkpoints ADD COLUMN train_samples BIGINT;
        ALTER TABLE checkpoints ADD COLUMN annotation_cost DOUBLE;
        ALTER TABLE arms ADD COLUMN merged BOOLEAN DEFAULT false;
        ALTER TABLE arms ADD COLUMN quantisation VARCHAR;
        CREATE TABLE findings (
            checkpoint VARCHAR NOT NULL,
            severity VARCHAR NOT NULL,
            check_name VARCHAR NOT NULL,
            text VARCHAR NOT NULL
        );
        CREATE TABLE changes (
            checkpoint VARCHAR PRIMARY KEY,
            parameters BIGINT NOT NULL,
            trainable BIGINT NOT NULL,
            tolerance VARCHAR NOT NULL
        );
        CREATE TABLE tensor_changes (
            checkpoint VARCHAR NOT NULL,
            position INTEGER NOT NULL,
            tensor VARCHAR NOT NULL,
            shape BIGINT[] NOT NULL,
            changed BIGINT NOT NULL,
            base_norm DOUBLE NOT NULL,
            norm DOUBLE NOT NULL,
            rank_90 BIGINT,
            effective_rank DOUBLE,
            PRIMARY KEY (checkpoint, position)
        );
        """,
    ),
    (
        "m003_science",
        """
        ALTER TABLE scores ADD COLUMN answer BIGINT;
        ALTER TABLE scores ADD COLUMN invalid BOOLEAN;
        ALTER TABLE scores ADD COLUMN confidence DOUBLE;
        ALTER TABLE plan_samples ADD COLUMN sample_cluster VARCHAR;
        ALTER TABLE tasks ADD COLUMN format_of VARCHAR;
        CREATE TABLE drift (
            arm INTEGER NOT NULL,
            plan INTEGER NOT NULL,
            task VARCHAR NOT NULL,
            sample INTEGER NOT NULL,
            kl FLOAT[] NOT NULL
        );
        CREATE TABLE matrices (
            name VARCHAR PRIMARY KEY,
            method VARCHAR NOT NULL,
            seed BIGINT,
            source VARCHAR NOT NULL,
            tasks VARCHAR[] NOT NULL,
            scores DOUBLE[][] NOT NULL,
            untrained DOUBLE[],
            joint DOUBLE[]
        );
        """,
    ),
    (
        "m004_gate",
        """
        ALTER TABLE plans ADD COLUMN part_of VARCHAR;
        CREATE TABLE decisions (
            decision INTEGER PRIMARY KEY,
            digest VARCHAR NOT NULL UNIQUE,
            base VARCHAR NOT NULL,
            checkpoint VARCHAR NOT NULL,
            evidence VARCHAR NOT NULL,
            verdict VARCHAR NOT NULL,
            p_pass DOUBLE,
            record VARCHAR NOT NULL,
            created TIMESTAMP NOT NULL
        );
        """,
    ),
    (
        "m005_costs",
        """
        ALTER TABLE checkpoints ADD COLUMN trainable_share DOUBLE;
        ALTER TABLE runs ADD COLUMN prompt_tokens DOUBLE;
        """,
    ),
    (
        "m006_plan_files",
        """
        CREATE TABLE plan_files (
            plan INTEGER NOT NULL,
            path VARCHAR NOT NULL,
            digest VARCHAR NOT NULL
        );
        """,
    ),
    (
        "m007_cpu_hours",
        """
        ALTER TABLE checkpoints ADD COLUMN cpu_hours DOUBLE;
        """,
    ),
    (
        "m008_tokenizer_path",
        """
        ALTER TABLE checkpoints ADD COLUMN tokenizer_path VARCHAR;
        """,
    ),
    (
        "m009_finding_suite",
        """
        ALTER TABLE findings ADD COLUMN suite VARCHAR;
        """,
    ),
    (
        "m010_training_seed",
        """
        ALTER TABLE checkpoints ADD COLUMN seed BIGINT;
        """,
    ),
    (
        "m011_documents",
        # The unit of evidence. The name of an imported item only says which item of its task it is.
        """
        ALTER TABLE samples ADD COLUMN document BIGINT;
        UPDATE samples SET document = CAST(md5_number_lower(
            CASE WHEN starts_with(doc, '{"item":') THEN concat(task, chr(10), doc) ELSE doc END
        ) >> 1 AS BIGINT);
        """,
    ),
    (
        "m012_resamples",
        """
        ALTER TABLE results ADD COLUMN resamples STRUCT(
            levels DOUBLE[], draws VARCHAR, units INTEGER, effective DOUBLE, has_clusters BOOLEAN
        );
        """,
    ),
]
