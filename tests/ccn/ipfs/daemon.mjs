// An IPFS node that is alone: `node daemon.mjs MODULES REPOSITORY PORT`, with the folder that has its packages. It says where it listens, and stops at SIGTERM.

import { pathToFileURL } from 'node:url'

// Packages of this node use what Node has since its version 22.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}

const [modules, repository, port] = process.argv.slice(2)
const { create } = await import(pathToFileURL(`${modules}/ipfs-core/src/index.js`))
const { HttpApi } = await import(pathToFileURL(`${modules}/ipfs-http-server/src/index.js`))

const ipfs = await create({
  repo: repository,
  offline: true,
  silent: true,
  init: { emptyRepo: true },
  config: {
    Addresses: { Swarm: [], API: `/ip4/127.0.0.1/tcp/${port}`, Gateway: '', Delegates: [] },
    Bootstrap: [],
    Discovery: { MDNS: { Enabled: false } }
  }
})
const api = new HttpApi(ipfs)
await api.start()
console.log(`listening on http://127.0.0.1:${port}`)

process.once('SIGTERM', async () => {
  await api.stop()
  await ipfs.stop()
  process.exit(0)
})
