"""Events out to whoever subscribed: each subscription's sink is sent what fits, in the order of each subject.

`registry` keeps the subscriptions, `dispatcher` serves one, `delivery` brings one event to its end (taken, or given up on
after a day), `sender` makes the HTTP call to an address that `addresses` allows, `signing` proves who sent it. Delivery
is at least once: a sink sees an event again, under the same webhook-id, when its answer was lost.
"""
