-- No semicolon in a comment: the statements are split at each.
-- "CATG" is the number by which SQLite knows the program that owns a file.
PRAGMA application_id = 1128354887;

-- One for each group, until = infinity, and one for each listener, which its bus must prolong.
-- Of the queues of one party (a group's listeners at QoS 0) one gets each message.
CREATE TABLE queue (id INTEGER PRIMARY KEY AUTOINCREMENT, party TEXT, bus TEXT, until REAL);

-- What goes to a queue.
CREATE TABLE route (
  subject TEXT,
  queue INTEGER REFERENCES queue ON DELETE CASCADE,
  PRIMARY KEY (subject, queue)
) WITHOUT ROWID;
CREATE INDEX route_queue ON route (queue);

-- A message. Its id is known for W, until then (0 at QoS 0, where nothing outlives its readers).
-- It goes on counting the attempts of the copy it was made from, and its replays.
CREATE TABLE entry (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT, id TEXT, body BLOB, known_until REAL,
  attempts INTEGER, replays INTEGER
);
CREATE INDEX entry_id ON entry (subject, id);

-- What a queue still has to do: due at once (0), or when the lease of its owner or a delay ends.
CREATE TABLE work (
  queue INTEGER REFERENCES queue ON DELETE CASCADE,
  sequence INTEGER REFERENCES entry ON DELETE CASCADE,
  attempt INTEGER, owner TEXT, due REAL,
  PRIMARY KEY (queue, sequence)
) WITHOUT ROWID;
CREATE INDEX work_entry ON work (sequence);
CREATE INDEX work_owner ON work (owner) WHERE owner <> '';

-- What groups completed, kept until then (D).
CREATE TABLE record (
  namespace TEXT, party TEXT, type TEXT, id TEXT, until REAL, response BLOB,
  PRIMARY KEY (namespace, party, type, id)
) WITHOUT ROWID
