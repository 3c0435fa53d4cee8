// Calls a VAE service from Node: `node client.mjs TARGET MODEL [COUNT]` draws samples, decodes their
// latents again and prints what came, as JSON. docs/clients.md says what the options are for.

import {readFileSync} from 'node:fs';
import {fileURLToPath} from 'node:url';
import grpc from '@grpc/grpc-js';
import {loadSync} from '@grpc/proto-loader';

const protos = fileURLToPath(new URL('../../protos', import.meta.url));
const options = {
  'grpc.service_config': readFileSync(`${protos}/vae/v1/service_config.json`, 'utf8'),
  'grpc.max_receive_message_length': 67_108_864,
  'grpc.max_send_message_length': 67_108_864,
  'grpc.per_rpc_retry_buffer_size': 67_108_864,
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.dns_min_time_between_resolutions_ms': 5_000,
  'grpc.max_reconnect_backoff_ms': 5_000,
};
const seconds = 20;

export function connect(target, credentials = grpc.credentials.createInsecure()) {
  const definition = loadSync('vae/v1/vae_service.proto', {includeDirs: [protos], longs: String});
  const {VaeService} = grpc.loadPackageDefinition(definition).vae.v1;
  return new VaeService(target, credentials, options);
}

// One unary call, with a deadline. Rejects with an error that has gRPC's `code` and `details`.
export function call(client, method, request) {
  const deadline = Date.now() + seconds * 1000;
  return new Promise((resolve, reject) => {
    client[method](request, {deadline}, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

// Tensors are little-endian, as typed arrays are wherever Node runs; their bytes need not be aligned.
export function toArray(tensor) {
  const bytes = Uint8Array.from(tensor.data);
  return {shape: tensor.shape.map(Number), values: new Float32Array(bytes.buffer)};
}

export function toTensor({shape, values}) {
  const data = Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  return {dataType: 'DATA_TYPE_FLOAT32', shape, data};
}

async function main(target, name, count = '4') {
  const client = connect(target);
  const model = `models/${name}`;
  const sampled = await call(client, 'Sample', {
    model, sampleCount: count, seed: '7', includeLatents: true,
  });
  const latents = toArray(sampled.latents);
  const decoded = await call(client, 'Decode', {
    model, latents: toTensor(latents), latentSpace: sampled.latentSpace,
  });
  const drawn = toArray(sampled.observations);
  const again = toArray(decoded.observations);
  const differences = drawn.values.map((value, index) => Math.abs(value - again.values[index]));
  client.close();
  console.log(JSON.stringify({
    model: sampled.model,
    seed: sampled.seed,
    observations: drawn.shape,
    latents: latents.shape,
    firstLatent: latents.values[0],
    largestDifference: Math.max(...differences),
  }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.length < 4) {
    console.error('usage: node client.mjs TARGET MODEL [COUNT]');
    process.exit(2);
  }
  main(...process.argv.slice(2)).catch((error) => {
    console.error(`error: ${grpc.status[error.code] ?? ''} ${error.details ?? error.message}`);
    process.exitCode = 1;
  });
}
