// What programs do with the network's packages of TypeScript, one flow a call: flows.mjs NAME [WORD...]. JSON on stdout.
//
// The node is CORE_URL, the key is PRIVATE_KEY. The clients themselves know neither variable.

import { AuthenticatedAlephHttpClient } from '@aleph-sdk/client'
import { importAccountFromMnemonic, importAccountFromPrivateKey, newAccount } from '@aleph-sdk/ethereum'
import { BaseMessageClient, ItemType, MessageType, PaymentType } from '@aleph-sdk/message'
import { newAccount as newSolanaAccount } from '@aleph-sdk/solana'

const core = process.env.CORE_URL
const account = importAccountFromPrivateKey(process.env.PRIVATE_KEY)
const client = new AuthenticatedAlephHttpClient(account, core)
const credit = { chain: 'ETH', type: PaymentType.credit }

const me = account.address
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds))

/** The error that a call ends with. */
async function failure(call) {
  try {
    await call()
  } catch (error) {
    return error
  }
  throw new Error('what has to fail did not')
}

/** Its name. */
async function refusal(call) {
  return (await failure(call)).name
}

async function accounts() {
  const made = newAccount()
  const again = importAccountFromMnemonic(made.mnemonic)
  return {
    address: me,
    chain: account.getChain(),
    same: made.account.address === again.address,
    words: made.mnemonic.split(' ').length,
  }
}

/** Somebody with a key of another chain, and with nothing else. */
async function solana() {
  const { account } = newSolanaAccount()
  const other = new AuthenticatedAlephHttpClient(account, core)
  const posted = await other.createPost({ postType: 'note', content: { title: 'from afar' }, sync: true })
  await other.createAggregate({ key: 'profile', content: { name: 'Sol' }, sync: true })
  const found = await other.getMessage(posted.item_hash)
  return {
    chain: found.chain,
    mine: found.sender === account.address && found.signature === posted.signature,
    profile: await other.fetchAggregate(account.address, 'profile'),
    hash: posted.item_hash,
  }
}

async function posts() {
  const post = (more) => client.createPost({ postType: 'note', channel: 'FLOWS', sync: true, ...more })
  const inline = await post({ content: { title: 'a' } })
  const long = await post({ content: { text: 'long '.repeat(20_000) } })
  const stored = await post({ content: { title: 'stored' }, storageEngine: ItemType.storage })
  const pinned = await post({ content: { title: 'pinned' }, storageEngine: ItemType.ipfs })
  const before = await client.getPost({ types: 'note', hashes: [inline.item_hash] })
  const amended = await post({ content: { title: 'b' }, postType: 'amend', ref: inline.item_hash })
  const after = await client.getPost({ types: 'note', hashes: [inline.item_hash] })
  const all = await client.getPosts({ types: ['note'], addresses: [me], channels: ['FLOWS'], pagination: 3 })
  const found = await client.getMessage(long.item_hash)
  await client.forget({ hashes: [inline.item_hash], reason: 'flow', sync: true })
  return {
    titles: [before.content.title, after.content.title],
    newest: after.item_hash === amended.item_hash && after.original_item_hash === inline.item_hash,
    total: all.pagination_total,
    page: all.posts.length,
    engines: [inline, long, stored, pinned].map((message) => message.item_type),
    length: found.content.content.text.length,
    forgotten: await refusal(() => client.getMessage(inline.item_hash)),
    unknown: await refusal(() => client.getMessage('ab'.repeat(32))),
    gone: await refusal(() => client.getPost({ types: 'note', hashes: [inline.item_hash] })),
    left: (await client.getPosts({ types: 'note', addresses: [me] })).posts.length,
    hash: inline.item_hash,
  }
}

async function aggregates() {
  const write = (key, content, more) => client.createAggregate({ key, content, channel: 'FLOWS', sync: true, ...more })
  await write('profile', { name: 'Ada', age: 36 })
  await write('profile', { age: 37 }, { storageEngine: ItemType.storage })
  await write('other', { a: [1, null] })
  return {
    one: await client.fetchAggregate(me, 'profile'),
    all: await client.fetchAggregates(me),
    some: await client.fetchAggregates(me, ['other', 'nothing']),
    none: await refusal(() => client.fetchAggregate(me, 'nothing')),
  }
}

async function files() {
  const text = 'hello world\n'
  const big = Buffer.from(Array.from({ length: 256 }, (_, index) => index)).toString('latin1').repeat(20_000)
  const bytes = Buffer.from(big, 'latin1')
  const store = (more) => client.createStore({ channel: 'FLOWS', payment: credit, sync: true, ...more })
  const small = await store({ fileObject: new Blob([text]), metadata: { name: 'small.txt' } })
  const large = await store({ fileObject: bytes, storageEngine: ItemType.ipfs })
  const pin = await store({ fileHash: large.content.item_hash, storageEngine: ItemType.ipfs })
  const download = async (message) => Buffer.from(await client.downloadFile(message.content.item_hash))
  const price = await client.storeClient.getCost(large.item_hash)
  const estimate = await client.storeClient.getEstimatedCost({
    account,
    fileObject: new Blob([text]),
    estimated_size_mib: 30,
    payment: { chain: 'ETH', type: PaymentType.hold },
  })
  return {
    small: (await download(small)).toString(),
    large: bytes.equals(await download(large)),
    hash: small.content.item_hash,
    cid: large.content.item_hash,
    messages: [small.item_hash, large.item_hash, pin.item_hash],
    price: [price.payment_type, price.cost],
    estimate: [estimate.payment_type, estimate.cost, estimate.detail.length],
  }
}

async function programs(image) {
  const code = await client.createStore({ fileObject: new Blob(['print(1)\n']), payment: credit, sync: true })
  const program = {
    programRef: code.item_hash,
    encoding: 'plain',
    entrypoint: 'main:app',
    runtime: image,
    channel: 'FLOWS',
    metadata: { name: 'one' },
    variables: { GREETING: 'hello' },
    memory: 2048,
    payment: credit,
  }
  const estimate = await client.programClient.getEstimatedCost({ account, ...program })
  const published = await client.createProgram(program)
  const price = await client.programClient.getCost(published.item_hash)
  const found = await client.getMessage(published.item_hash)
  await client.forget({ hashes: [published.item_hash], sync: true })
  return {
    name: found.content.metadata.name,
    variables: found.content.variables,
    code: found.content.code.ref === code.item_hash,
    same: estimate.cost === price.cost,
    payment: price.payment_type,
    unknown: (await failure(() => client.createProgram({ ...program, programRef: 'ab'.repeat(32) }))).message,
    forgotten: await refusal(() => client.getMessage(published.item_hash)),
    hash: published.item_hash,
  }
}

async function instances(node, image) {
  const instance = {
    rootfs: { parent: { ref: image }, size_mib: 20_480 },
    resources: { vcpus: 1, memory: 2048, seconds: 30 },
    authorized_keys: ['ssh-ed25519 AAAA somebody@home'],
    requirements: { node: { node_hash: node } },
    metadata: { name: 'machine' },
    channel: 'FLOWS',
    payment: credit,
  }
  const estimate = await client.instanceClient.getEstimatedCost({ account, ...instance })
  const published = await client.createInstance(instance)
  const price = await client.instanceClient.getCost(published.item_hash)
  return { hash: published.item_hash, estimate: [estimate.payment_type, estimate.cost], same: estimate.cost === price.cost }
}

/** Lists of messages, by each of the filters. */
async function messages() {
  const began = new Date()
  const sent = []
  for (const [number, channel] of ['ONE', 'TWO', 'TWO'].entries()) {
    const content = { number, tags: [channel.toLowerCase()] }
    const post = await client.createPost({ postType: `kind-${number}`, ref: 'filters', content, channel, sync: true })
    sent.push(post.item_hash)
  }
  const aggregate = await client.createAggregate({ key: 'filters', content: { a: 1 }, channel: 'ONE', sync: true })
  sent.push(aggregate.item_hash)
  const numbers = async (filters) => {
    const answer = await client.getMessages({ addresses: [me], ...filters })
    return answer.messages.map((message) => sent.indexOf(message.item_hash))
  }
  const second = await client.getMessages({ addresses: [me], pagination: 3, page: 2 })
  return {
    all: await numbers({}),
    channel: await numbers({ channels: ['TWO'] }),
    types: await numbers({ messageTypes: [MessageType.aggregate, MessageType.post] }),
    type: await numbers({ messageTypes: [MessageType.aggregate] }),
    kinds: await numbers({ contentTypes: ['kind-0', 'kind-2'] }),
    keys: await numbers({ contentKeys: ['filters'] }),
    refs: await numbers({ refs: ['filters'] }),
    tags: await numbers({ tags: ['one'] }),
    hashes: await numbers({ hashes: [sent[1], sent[3]] }),
    chains: await numbers({ chains: ['ETH'] }),
    other_chain: await numbers({ chains: ['SOL'] }),
    paid: await numbers({ paymentTypes: [PaymentType.credit] }),
    since: await numbers({ startDate: began }),
    until: await numbers({ endDate: began }),
    page: [second.messages.map((message) => sent.indexOf(message.item_hash)), second.pagination_total],
  }
}

/** Hears what is published after it has begun to listen. */
async function watch() {
  const socket = new BaseMessageClient(core, core.replace('http', 'ws')).getMessagesSocket({
    addresses: [me],
    contentTypes: ['watched'],
    messageType: MessageType.post,
  })
  const heard = () => socket.getData().map((message) => message.content.content.number)
  for (let number = 0; heard().length < 3 && number < 200; number += 1) {
    await client.createPost({ postType: 'watched', content: { number }, sync: true })
    await client.createPost({ postType: 'unwatched', content: { number }, sync: true })
    await pause(50)
  }
  const open = socket.getIsOpen()
  socket.closeSocket()
  return { heard: heard(), open }
}

/** Posts for another, who has to give leave first. */
async function delegates(key) {
  const delegate = importAccountFromPrivateKey(key)
  const other = new AuthenticatedAlephHttpClient(delegate, core)
  const post = () => other.createPost({ address: me, postType: 'note', content: { text: 'for another' }, sync: true })
  const before = await refusal(post)
  await client.createAggregate({
    key: 'security',
    channel: 'security',
    content: { authorizations: [{ address: delegate.address, types: ['POST'] }] },
    sync: true,
  })
  const posted = await post()
  const found = await client.getPost({ types: 'note', hashes: [posted.item_hash] })
  return { before, address: found.address, sender: posted.sender }
}

/** Fails as a program does that does not expect to be refused. */
async function amend(hash) {
  await client.createPost({ postType: 'amend', ref: hash, content: { title: 'mine' }, sync: true })
}

/** The same with what it cannot pay. */
async function overspend(image) {
  await client.createInstance({
    rootfs: { parent: { ref: image }, size_mib: 20_480 },
    resources: { vcpus: 1, memory: 2048, seconds: 30 },
    payment: credit,
  })
}

const flows = {
  accounts,
  solana,
  posts,
  aggregates,
  files,
  programs,
  instances,
  messages,
  watch,
  delegates,
  amend,
  overspend,
}

// The clients tell of their sockets on stdout, which is for the answer.
console.log = console.error
const [name, ...words] = process.argv.slice(2)
process.stdout.write(`${JSON.stringify(await flows[name](...words))}\n`)
