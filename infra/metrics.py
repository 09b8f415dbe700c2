"""Prometheus metrics of a worker, named once; units are in the names, labels are few and bounded."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

CHECKPOINT_SECONDS = Histogram(
    "headrace_checkpoint_seconds",
    "Time of one shard's checkpoint, from swapped buffers to stored rows",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    registry=REGISTRY,
)
CHECKPOINT_ROWS = Counter("headrace_checkpoint_rows", "Rows, blocks and dead letters made durable", registry=REGISTRY)
EVENTS = Gauge(
    "headrace_events",
    "Interactions of the owned shards by outcome, exact with their state: learned, ignored, duplicate, dead",
    ["outcome"],
    registry=REGISTRY,
)
DEAD = Gauge("headrace_dead_letters", "Interactions refused, by reason", ["reason"], registry=REGISTRY)
LAG = Gauge(
    "headrace_lag_records", "Records of the owned shards not applied yet, by topic", ["topic"], registry=REGISTRY
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
REQUEST_SECONDS = Histogram(
    "headrace_request_seconds",
    "Time to answer a request, by route and status class",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    registry=REGISTRY,
)
STEP_SECONDS = Histogram(
    "headrace_step_seconds",
    "Time for which one micro-batch held the loop, by agent",
    ["agent"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
    registry=REGISTRY,
)
