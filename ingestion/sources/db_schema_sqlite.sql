-- As db_schema.sql, for SQLite: lists and objects are JSON text, times are text of ISO 8601, and `changed` counts writes: SQLite has one
-- writer at a time, so that their order is that of their commits.

CREATE TABLE headrace_changes (last INTEGER NOT NULL);
INSERT INTO headrace_changes VALUES (0);

CREATE TABLE videos (
    video_id         TEXT PRIMARY KEY NOT NULL CHECK (length(CAST(video_id AS BLOB)) BETWEEN 1 AND 128),
    title            TEXT NOT NULL DEFAULT '' CHECK (length(title) <= 500),
    description      TEXT NOT NULL DEFAULT '' CHECK (length(description) <= 10000),
    categories       TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(categories)),
    tags             TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(tags)),
    author           TEXT CHECK (length(author) BETWEEN 1 AND 128),
    language         TEXT CHECK (length(language) BETWEEN 1 AND 128),
    duration_seconds REAL CHECK (duration_seconds >= 0),
    published_at     TEXT CHECK (julianday(published_at) IS NOT NULL OR published_at IS NULL),
    embedding        BLOB CHECK (length(embedding) BETWEEN 8 AND 1024), -- signed bytes: what the text means
    hidden           INTEGER NOT NULL DEFAULT 0 CHECK (hidden IN (0, 1)),
    deleted          INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    changed          INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX videos_changed ON videos (changed, video_id);

CREATE TABLE users (
    user_id    TEXT PRIMARY KEY NOT NULL CHECK (length(CAST(user_id AS BLOB)) BETWEEN 1 AND 128),
    language   TEXT CHECK (length(language) BETWEEN 1 AND 128),
    country    TEXT CHECK (length(country) BETWEEN 1 AND 128),
    age_band   TEXT CHECK (length(age_band) BETWEEN 1 AND 128),
    segments   TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(segments)),
    attributes TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(attributes)),
    deleted    INTEGER NOT NULL DEFAULT 0 CHECK (deleted IN (0, 1)),
    changed    INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX users_changed ON users (changed, user_id);

CREATE TABLE interactions (
    interaction_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id           TEXT NOT NULL CHECK (length(CAST(user_id AS BLOB)) BETWEEN 1 AND 128),
    video_id          TEXT NOT NULL CHECK (length(CAST(video_id AS BLOB)) BETWEEN 1 AND 128),
    event             TEXT NOT NULL CHECK (event IN (
                          'impression', 'view', 'watch', 'like', 'unlike', 'share', 'comment', 'follow', 'skip', 'dislike')),
    at                TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')) CHECK (julianday(at) IS NOT NULL),
    watch_seconds     REAL CHECK (watch_seconds >= 0),
    duration_seconds  REAL CHECK (duration_seconds >= 0),
    session_id        TEXT CHECK (length(CAST(session_id AS BLOB)) BETWEEN 1 AND 128),
    recommendation_id TEXT CHECK (length(CAST(recommendation_id AS BLOB)) BETWEEN 1 AND 128),
    context           TEXT CHECK (context IS NULL OR json_valid(context)),
    changed           INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX interactions_changed ON interactions (changed, interaction_id);

CREATE TRIGGER videos_added AFTER INSERT ON videos BEGIN
    UPDATE headrace_changes SET last = last + 1;
    UPDATE videos SET changed = (SELECT last FROM headrace_changes) WHERE video_id = NEW.video_id;
END;
CREATE TRIGGER videos_changed AFTER UPDATE ON videos WHEN NEW.changed IS OLD.changed BEGIN
    UPDATE headrace_changes SET last = last + 1;
    UPDATE videos SET changed = (SELECT last FROM headrace_changes) WHERE video_id = NEW.video_id;
END;
CREATE TRIGGER users_added AFTER INSERT ON users BEGIN
    UPDATE headrace_changes SET last = last + 1;
    UPDATE users SET changed = (SELECT last FROM headrace_changes) WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER users_changed AFTER UPDATE ON users WHEN NEW.changed IS OLD.changed BEGIN
    UPDATE headrace_changes SET last = last + 1;
    UPDATE users SET changed = (SELECT last FROM headrace_changes) WHERE user_id = NEW.user_id;
END;
CREATE TRIGGER interactions_added AFTER INSERT ON interactions BEGIN
    UPDATE headrace_changes SET last = last + 1;
    UPDATE interactions SET changed = (SELECT last FROM headrace_changes) WHERE interaction_id = NEW.interaction_id;
END;
