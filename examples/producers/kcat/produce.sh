#!/usr/bin/env bash
# Send events to Headrace through Kafka with kcat: one JSON object a line of standard input. jq gives each its key.
#
#     apt-get install kcat jq
#     ./produce.sh < events.jsonl
#
# KAFKA_BOOTSTRAP_SERVERS names the brokers, TOPIC another topic than `interactions`. `event_id` and `at_ms` are filled in where they are
# missing. Ends with kcat's status, which is not 0 if the brokers have not taken every event.
set -euo pipefail

# A tab cannot stand in JSON but escaped, so it is safe between key and value.
jq --raw-output --compact-output --arg run "$(date +%s%N)" '
	{event_id: "\($run)-\(input_line_number)", at_ms: (now * 1000 | floor)} + . | "\(.user_id)\t\(tojson)"' |
	# librdkafka's own default sends a user's events to another partition than Kafka's Java client: Headrace would refuse them.
	kcat -P -b "${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}" -t "${TOPIC:-interactions}" -K '\t' \
		-X partitioner=murmur2_random -X enable.idempotence=true -X message.timeout.ms=30000
