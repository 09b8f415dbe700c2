"""Prometheus metrics of a worker, named once; units are in the names, labels are few and bounded."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

# When a counter was made is the process's start: half of all lines would say that.
disable_created_metrics()  # type: ignore[no-untyped-call] # theirs
REGISTRY = CollectorRegistry()
# Memory, CPU time, open files and the start of the process, under Prometheus' usual names.
ProcessCollector(registry=REGISTRY)

CHECKPOINT_SECONDS = Histogram(
    "headrace_checkpoint_seconds",
    "Time of one shard's checkpoint, from swapped buffers to stored rows",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    registry=REGISTRY,
)
CHECKPOINT_ROWS = Counter("headrace_checkpoint_rows", "Rows, blocks and dead letters made durable", registry=REGISTRY)
RESTORE_SECONDS = Histogram(
    "headrace_restore_seconds",
    "Time to take over the shards of an assignment: fencing old owners, bringing stores up to changelogs, reading them into memory",
    buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
    registry=REGISTRY,
)
RESTORE_ROWS = Counter(
    "headrace_restore_rows", "Changelog records that the stores of shards taken over lacked", registry=REGISTRY
)
STORE_BYTES = Gauge(
    "headrace_store_bytes", "Size of the owned shards' stores on disk, by table", ["table"], registry=REGISTRY
)
DISK_FREE = Gauge("headrace_disk_free_bytes", "Free space of the disk that the stores are on", registry=REGISTRY)
EVENTS = Gauge(
    "headrace_events",
    "Interactions of the owned shards by outcome, exact with their state: learned, ignored, duplicate, dead",
    ["outcome"],
    registry=REGISTRY,
)
DEAD = Gauge("headrace_dead_letters", "Interactions refused, by reason", ["reason"], registry=REGISTRY)
EXPIRED = Counter(
    "headrace_expired",
    "What this process has let go because it was not met for its time to live: rows of users, videos",
    ["kind"],
    registry=REGISTRY,
)
LAG = Gauge(
    "headrace_lag_records", "Records of the owned shards not applied yet, by topic", ["topic"], registry=REGISTRY
)
STANDBY_SHARDS = Gauge(
    "headrace_standby_shards", "Shards of other workers that this one keeps copies of", registry=REGISTRY
)
STANDBY_AGE = Gauge(
    "headrace_standby_age_seconds",
    "Age of the oldest copy: since when it is known not to have all that is in the log",
    registry=REGISTRY,
)
STATE_AGE = Gauge(
    "headrace_state_age_seconds",
    "Age of what lists are made of: 0 while no known interaction waits, else since the latest one applied arrived; the oldest shard's",
    registry=REGISTRY,
)
LESSONS = Gauge(
    "headrace_ranker_lessons",
    "What became of the ranker's lessons in this process: learned, refused (a number was not finite or too large), no_candidate",
    ["outcome"],
    registry=REGISTRY,
)
REFUSED_PARTS = Gauge(
    "headrace_ranker_refused",
    "Lessons and other workers' parts that the ranker did not take, since the process started",
    registry=REGISTRY,
)
EXPOSURES = Gauge(
    "headrace_exposures",
    "What became of exposures in this process: learned, refused, late (an event after its window), lost (user or video gone); and of"
    " served lists: listed, unanswered (nothing followed), unreadable",
    ["outcome"],
    registry=REGISTRY,
)
EXPOSURES_WAITING = Gauge("headrace_exposures_waiting", "Exposures whose outcome is waited for", registry=REGISTRY)
HEAD_RATE = Gauge("headrace_head_rate_ratio", "Mean outcome of all lessons, by head", ["head"], registry=REGISTRY)
LISTS_LOST = Counter(
    "headrace_recommendations_lost",
    "Served lists that were not logged, for want of a broker or room",
    registry=REGISTRY,
)
SHARDS = Gauge("headrace_shards", "Shards that this worker owns", registry=REGISTRY)
USERS = Gauge("headrace_users", "Users in memory", registry=REGISTRY)
VIDEOS = Gauge("headrace_videos", "Videos that may be recommended", registry=REGISTRY)
INDEX_ROWS = Gauge("headrace_index_rows", "Videos in the graph index", registry=REGISTRY)
INDEX_WAITING = Gauge("headrace_index_waiting_rows", "Changed videos not in the graph index yet", registry=REGISTRY)
INDEX_RECALL = Gauge(
    "headrace_index_recall_ratio",
    "Recall@100 of the graph index beside exact search, mean of the latest 50 samples; NaN while there is no graph",
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "headrace_request_seconds",
    "Time to answer a request, by route and status class",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "headrace_stage_seconds",
    "Time of a list's stages: hop, filter, candidates, rank, diversify, explain, log, encode",
    ["stage"],
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05),
    registry=REGISTRY,
)
KEYS_REFUSED = Counter(
    "headrace_keys_refused",
    "Requests refused for their key: missing, wrong, or without the scope",
    ["why"],
    registry=REGISTRY,
)
REQUESTS_LIMITED = Counter(
    "headrace_requests_limited", "Requests refused because of HEADRACE_RATE_LIMIT", registry=REGISTRY
)
BAD_REQUESTS = Counter("headrace_bad_http", "What came in and was no HTTP request", registry=REGISTRY)
CONNECTIONS = Gauge("headrace_connections", "Open HTTP connections", registry=REGISTRY)
CONNECTIONS_CLOSED = Counter(
    "headrace_connections_closed",
    "Connections closed by us before their time: full (none was idle), room (idle the longest when one more came), slow_head,"
    " large_head, slow_reader",
    ["why"],
    registry=REGISTRY,
)
EVENT_DELAY_SECONDS = Histogram(
    "headrace_event_delay_seconds",
    "From an event's arrival in the log to the worker (fetched) and into its models (learned), of the last event of each batch",
    ["stage"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 30.0),
    registry=REGISTRY,
)
STEP_SECONDS = Histogram(
    "headrace_step_seconds",
    "Time for which one micro-batch held the loop, by agent",
    ["agent"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    registry=REGISTRY,
)
ONLINE_SCORED = Gauge(
    "headrace_online_scored",
    "Positives for which lists were ranked before they were learned, in this process",
    registry=REGISTRY,
)
ONLINE_POSITIVES = Gauge(
    "headrace_online_positives",
    "Positives of which those scored are a sample, repeated ones included",
    registry=REGISTRY,
)
ONLINE_FAILED = Gauge(
    "headrace_online_failed", "Sampled positives that an error kept from being scored", registry=REGISTRY
)
ONLINE_SAMPLED = Gauge(
    "headrace_online_sampled_ratio", "Share of the positives that was drawn, since the start", registry=REGISTRY
)
ONLINE_CPU_SECONDS = Gauge("headrace_online_cpu_seconds", "CPU time that scoring has taken", registry=REGISTRY)
ONLINE_CPU = Gauge(
    "headrace_online_cpu_ratio",
    "Share of the process's CPU time that scoring has taken, since the start",
    registry=REGISTRY,
)
ONLINE_HITS = Gauge(
    "headrace_online_hits", "Scored positives that were in the list of 10, by arm", ["arm"], registry=REGISTRY
)
ONLINE_GAIN = Gauge(
    "headrace_online_gain", "Sum of 1 / log2(place + 2) of the scored positives in the list of 10, places from 0, by arm", ["arm"],
    registry=REGISTRY,
)  # fmt: skip
ONLINE_RECALL = Gauge(
    "headrace_online_recall",
    "Recall@10 of the latest scored positives, by arm and their number",
    ["arm", "window"],
    registry=REGISTRY,
)
ONLINE_NDCG = Gauge(
    "headrace_online_ndcg",
    "NDCG@10 of the latest scored positives, by arm and their number",
    ["arm", "window"],
    registry=REGISTRY,
)
ONLINE_CANDIDATES = Gauge(
    "headrace_online_candidate_ratio", "Share of the scored positives that the ranker had among its candidates", ["window"],
    registry=REGISTRY,
)  # fmt: skip
ONLINE_LOG_LOSS = Gauge(
    "headrace_online_log_loss_nats", "The ranker's mean loss of a scored positive among its candidates (softmax)", ["window"],
    registry=REGISTRY,
)  # fmt: skip
ONLINE_CALIBRATION = Gauge(
    "headrace_online_calibration_ratio",
    "Predicted over observed rate of scored positives in the ranker's best 10, where they were candidates",
    ["window"],
    registry=REGISTRY,
)
ONLINE_COVERAGE = Gauge(
    "headrace_online_coverage_ratio", "Share of the videos that was in some scored list", ["window"], registry=REGISTRY
)
ONLINE_GINI = Gauge(
    "headrace_online_gini", "Gini coefficient of how often videos were in scored lists: 0 alike, 1 all for one", ["window"],
    registry=REGISTRY,
)  # fmt: skip
ONLINE_NOVELTY = Gauge(
    "headrace_online_novelty_bits",
    "Mean of -log2 of the share of all positives that a listed video has",
    ["window"],
    registry=REGISTRY,
)
ONLINE_LAG = Gauge(
    "headrace_online_lag_events",
    "Events before a scored positive that its list did not know, mean: of the user (own), and in what all users share (shared)",
    ["part", "window"],
    registry=REGISTRY,
)
ONLINE_LAGS = Gauge(
    "headrace_online_lag_events_sum", "Sum of these lags over all scored positives", ["part"], registry=REGISTRY
)
ONLINE_DRIFTS = Gauge(
    "headrace_online_drifts",
    "Times that the share of positives in served lists has changed for good since the start, by direction: up, down",
    ["direction"],
    registry=REGISTRY,
)
SERVED_BELOW_BASELINES = Gauge(
    "headrace_served_below_baselines",
    "1 while served lists are significantly below popularity or co-visitation in a window of at least 500 scored positives",
    registry=REGISTRY,
)
BREAKER_STATE = Gauge(
    "headrace_breaker_state", "State of a circuit breaker: 0 closed, 1 trying, 2 open", ["service"], registry=REGISTRY
)
CACHE_LOOKUPS = Counter(
    "headrace_cache_lookups",
    "Lookups of a user's last list by outcome: hit, miss, negative (known to be none, not asked), failed, open (breaker), busy (too"
    " many at once); hits over hit, miss and negative are the hit ratio",
    ["outcome"],
    registry=REGISTRY,
)
CACHE_WRITES = Counter(
    "headrace_cache_writes",
    "Lists for the cache by outcome: stored, replaced (a later one of the same user came first), dropped (no room, or breaker open),"
    " failed",
    ["outcome"],
    registry=REGISTRY,
)
FALLBACK_ANSWERS = Counter(
    "headrace_fallback_answers",
    "Answers by the step that gave them; none: no step had one",
    ["step"],
    registry=REGISTRY,
)
FALLBACK_PASSED = Counter(
    "headrace_fallback_passed",
    "Steps without an answer, by reason: empty (it had none), timeout (budget over), error",
    ["step", "reason"],
    registry=REGISTRY,
)
FALLBACK_OVERRUNS = Counter(
    "headrace_fallback_overruns",
    "Answers that took longer than their step's budget, and were used: what computes cannot be interrupted",
    ["step"],
    registry=REGISTRY,
)
FALLBACK_SECONDS = Histogram(
    "headrace_fallback_seconds",
    "Time that a step took, with an answer or without",
    ["step"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    registry=REGISTRY,
)
ANSWER_AGE = Histogram(
    "headrace_answer_age_seconds",
    "How far behind a list was when it was given: now less its as_of_ms, by its source; lists of unknown age are not in it",
    ["source"],
    buckets=(0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0),
    registry=REGISTRY,
)
HOPS = Counter(
    "headrace_hops",
    "Questions to the worker that owns a user, by outcome: answered, not_found, misdirected (it does not own the user any more),"
    " refused (another 4xx), failed (5xx, no answer of ours, or no connection), timeout, open (breaker), busy (too many under way),"
    " nobody (no other owner is known)",
    ["outcome"],
    registry=REGISTRY,
)
HOP_SECONDS = Histogram(
    "headrace_hop_seconds",
    "Time that a question to the worker that owns a user took, whatever came of it",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
    registry=REGISTRY,
)
HOP_HEDGES = Counter("headrace_hop_hedges", "Questions to another worker that were asked twice", registry=REGISTRY)
HOP_PEERS_AWAY = Gauge(
    "headrace_hop_peers_away", "Workers that did not answer and are left alone for a while", registry=REGISTRY
)
LIMIT_EXCHANGES = Counter(
    "headrace_limit_exchanges",
    "What was spent of rate limits told to the other workers: done, failed (each worker limits for itself)",
    ["outcome"],
    registry=REGISTRY,
)
EXPERIMENT_COUNT = Gauge(
    "headrace_experiment_count",
    "What followed the lists of an experiment's arms in the owned shards, exact with their state: lists, hits (lists with a click),"
    " shown, clicks and positives (places), watch_seconds",
    ["arm", "measure"],
    registry=REGISTRY,
)
EXPERIMENT_FIGURE = Gauge(
    "headrace_experiment_figure",
    "Figures of an experiment's arms over all shards, as far as this worker knows them: value, and low and high of its 95% interval of"
    " users (NaN while too little is known)",
    ["arm", "figure", "bound"],
    registry=REGISTRY,
)
EXPERIMENT_PROBABILITY = Gauge(
    "headrace_experiment_larger_ratio",
    "Probability that an arm's figure is larger than the control's, if nothing was known before; NaN while too little is known",
    ["arm", "figure"],
    registry=REGISTRY,
)
EXPERIMENT_INCOMPLETE = Gauge(
    "headrace_experiment_lists_incomplete",
    "Lists of an experiment, of all shards, that do not count as they were read long after what could have followed them (late), or"
    " that count with what had followed them when their worker ended (short)",
    ["reason"],
    registry=REGISTRY,
)
