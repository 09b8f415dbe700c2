// Send events to Headrace through Kafka with @platformatic/kafka: one JSON object a line of standard input.
//
//     npm install
//     node produce.js < events.jsonl
//
// KAFKA_BOOTSTRAP_SERVERS names the brokers, TOPIC another topic than `interactions`. `event_id` and `at_ms` are filled in where they
// are missing. Ends with status 1 if the brokers have not taken every event.
import { randomUUID } from 'node:crypto'
import { createInterface } from 'node:readline'
import { compatibilityPartitioner, Producer, stringSerializers } from '@platformatic/kafka'

const TOPIC = process.env.TOPIC ?? 'interactions'
const BATCH = 500 // events a request

const producer = new Producer({
  clientId: 'headrace-example',
  bootstrapBrokers: (process.env.KAFKA_BOOTSTRAP_SERVERS ?? 'localhost:9092').split(','),
  serializers: stringSerializers,
  idempotent: true, // sent again by the client, and yet in the log once and in order; implies acks=all
  // The default agrees with Kafka's Java client only where the number of partitions is a power of two.
  partitioner: compatibilityPartitioner,
  // Without a bound an idempotent producer would try for ever.
  retries: 10
})

let waiting = []
let sent = 0

async function flush () {
  if (waiting.length === 0) return
  await producer.send({ messages: waiting })
  sent += waiting.length
  waiting = []
}

try {
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === '') continue
    const event = { event_id: randomUUID(), at_ms: Date.now(), ...JSON.parse(line) }
    waiting.push({ topic: TOPIC, key: event.user_id, value: JSON.stringify(event) })
    if (waiting.length >= BATCH) await flush()
  }
  await flush()
  console.log(`${sent} events sent`)
} catch (error) {
  console.error(`${sent} events sent, then: ${error.message}`)
  process.exitCode = 1
} finally {
  await producer.close().catch(() => {})
}
