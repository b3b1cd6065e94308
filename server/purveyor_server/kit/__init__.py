"""Clock, ids, supervised tasks, backoff and test signals: the bricks that know nothing of brokering."""
