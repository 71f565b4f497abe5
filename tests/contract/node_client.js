// What the Node.js client does for test_other_clients.py: works on one set and prints what it saw as JSON.
const Aerospike = require('aerospike')

const [host, namespace, set] = process.argv.slice(2)
const key = n => new Aerospike.Key(namespace, set, n)

function collect (stream) {
  return new Promise((resolve, reject) => {
    const found = []
    stream.on('data', record => found.push(record.bins.n))
    stream.on('error', reject)
    stream.on('end', () => resolve(found.sort((a, b) => a - b)))
  })
}

async function main () {
  Aerospike.setDefaultLogging({ level: Aerospike.log.OFF })
  const client = await Aerospike.connect({ hosts: host })
  const seen = { nodes: client.getNodes().length }
  for (let n = 0; n < 20; n++) {
    await client.put(key(n), { n, text: `node ${n}`, list: [n, 'x'], map: { half: new Aerospike.Double(n + 0.5) } })
  }
  const record = await client.get(key(7))
  seen.get = [record.bins, record.gen]
  seen.batch = (await client.batchRead([3, 99, 5].map(n => ({ key: key(n), readAllBins: true }))))
    .map(row => row.status === 0 ? row.record.bins.n : null)
  const writes = [20, 21].map(n => ({
    type: Aerospike.batchType.BATCH_WRITE, key: key(n), ops: [Aerospike.operations.write('n', n)]
  }))
  seen.batchWrite = (await client.batchWrite(writes)).map(row => row.status)
  seen.scan = await collect(client.scan(namespace, set).foreach())
  const job = await client.createIntegerIndex({ ns: namespace, set, bin: 'n', index: `${set}-index` })
  await job.waitUntilDone()
  const query = client.query(namespace, set)
  query.where(Aerospike.filter.range('n', 4, 6))
  seen.query = await collect(query.foreach())
  await client.indexRemove(namespace, `${set}-index`)
  console.log(JSON.stringify(seen))
  await client.close()
}

main().catch(error => { console.error(error); process.exit(1) })
