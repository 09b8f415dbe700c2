-- Tables from which `headrace pull sql` reads videos, users and interactions. PostgreSQL 13 or newer; for SQLite see db_schema_sqlite.sql.
--
-- `changed` is the transaction that wrote the row last. Headrace reads in its order, up to the oldest transaction that still runs, so that
-- none which commits late is passed over. After a restore into another cluster, whose transactions are counted anew, say
-- UPDATE ... SET changed = DEFAULT.

CREATE TABLE videos (
    video_id         text PRIMARY KEY CHECK (octet_length(video_id) BETWEEN 1 AND 128),
    title            text NOT NULL DEFAULT '' CHECK (char_length(title) <= 500),
    description      text NOT NULL DEFAULT '' CHECK (char_length(description) <= 10000),
    categories       text[] NOT NULL DEFAULT '{}' CHECK (cardinality(categories) <= 64),
    tags             text[] NOT NULL DEFAULT '{}' CHECK (cardinality(tags) <= 64),
    author           text CHECK (char_length(author) BETWEEN 1 AND 128),
    language         text CHECK (char_length(language) BETWEEN 1 AND 128),
    duration_seconds double precision CHECK (duration_seconds >= 0 AND duration_seconds < 'infinity'),
    published_at     timestamptz CHECK (published_at >= 'epoch' AND published_at < 'infinity'),
    embedding        bytea CHECK (octet_length(embedding) BETWEEN 8 AND 1024), -- signed bytes: what the text means
    hidden           boolean NOT NULL DEFAULT false,
    deleted          boolean NOT NULL DEFAULT false, -- set it rather than delete the row, or compare keys (--compare)
    changed          xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX videos_changed ON videos (changed, video_id);

CREATE TABLE users (
    user_id    text PRIMARY KEY CHECK (octet_length(user_id) BETWEEN 1 AND 128),
    language   text CHECK (char_length(language) BETWEEN 1 AND 128),
    country    text CHECK (char_length(country) BETWEEN 1 AND 128),
    age_band   text CHECK (char_length(age_band) BETWEEN 1 AND 128),
    segments   text[] NOT NULL DEFAULT '{}' CHECK (cardinality(segments) <= 64),
    attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    deleted    boolean NOT NULL DEFAULT false,
    changed    xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX users_changed ON users (changed, user_id);

-- What happened: rows are added, and never changed.
CREATE TABLE interactions (
    interaction_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id           text NOT NULL CHECK (octet_length(user_id) BETWEEN 1 AND 128),
    video_id          text NOT NULL CHECK (octet_length(video_id) BETWEEN 1 AND 128),
    event             text NOT NULL CHECK (event IN (
                          'impression', 'view', 'watch', 'like', 'unlike', 'share', 'comment', 'follow', 'skip', 'dislike')),
    at                timestamptz NOT NULL DEFAULT now() CHECK (at >= 'epoch' AND at < 'infinity'),
    watch_seconds     double precision CHECK (watch_seconds >= 0 AND watch_seconds < 'infinity'),
    duration_seconds  double precision CHECK (duration_seconds >= 0 AND duration_seconds < 'infinity'),
    session_id        text CHECK (octet_length(session_id) BETWEEN 1 AND 128),
    recommendation_id text CHECK (octet_length(recommendation_id) BETWEEN 1 AND 128),
    context           jsonb CHECK (jsonb_typeof(context) = 'object'),
    changed           xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX interactions_changed ON interactions (changed, interaction_id);

CREATE FUNCTION headrace_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    RETURN NEW;
END
$$;
CREATE TRIGGER videos_changed BEFORE UPDATE ON videos FOR EACH ROW EXECUTE FUNCTION headrace_changed();
CREATE TRIGGER users_changed BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION headrace_changed();
