-- Turns that were cut because their owner was gone, newest last: what an operator looks for first.
CREATE INDEX turns_lost ON turns (ended_at) WHERE row::json ->> 'reason' = 'owner_gone';
