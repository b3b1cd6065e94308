-- What sweeps ask for are the sightings that have not ended, and those that have ended long ago; neither looks at the others.

DROP INDEX sightings_by_sweep;
CREATE INDEX sightings_by_sweep ON sightings (provider, sweep)
    WHERE state IN ('SEEN', 'CONFIRMED', 'QUARANTINED', 'IGNORED');
CREATE INDEX sightings_ended ON sightings (last_seen) WHERE state IN ('REAPED', 'GONE', 'ADOPTED');
