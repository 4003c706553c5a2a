// The examples of Ollama's documentation with the official JavaScript SDKs, against the server at argv[2] with the
// model argv[3]. Prints one JSON object: what each of them gave.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { Ollama } from "ollama";

const [url, model] = process.argv.slice(2);
const anthropic = new Anthropic({ baseURL: url, apiKey: "ollama" });
const openai = new OpenAI({ baseURL: `${url}/v1/`, apiKey: "ollama" });
const ollama = new Ollama({ host: url });

const messages = [{ role: "user", content: "What is the capital of France?" }];
const schema = {
  type: "object",
  properties: { name: { type: "string" }, capital: { type: "string" } },
  required: ["name", "capital"],
  additionalProperties: false,
};
const tool = { name: "get_weather", description: "Get the current weather in a location" };
const place = { type: "object", properties: { location: { type: "string" } }, required: ["location"] };
const short = { max_tokens: 24, temperature: 0 };
const found = {};

async function anthropicExamples() {
  const message = await anthropic.messages.create({ model, messages, ...short });
  found.anthropic = message.content[0].text;
  found.anthropicStop = message.stop_reason;
  const stream = anthropic.messages.stream({ model, messages, ...short });
  let text = "";
  for await (const event of stream) {
    if (event.type === "content_block_delta" && event.delta.type === "text_delta") text += event.delta.text;
  }
  found.anthropicStream = text;
  found.anthropicFinal = (await stream.finalMessage()).content[0].text;
  const called = await anthropic.messages.create({
    model,
    messages: [{ role: "user", content: "What is the weather in San Francisco?" }],
    max_tokens: 200,
    temperature: 0,
    tools: [{ ...tool, input_schema: place }],
    tool_choice: { type: "tool", name: "get_weather", disable_parallel_tool_use: true },
  });
  found.anthropicTool = called.content.find((block) => block.type === "tool_use");
  found.anthropicCount = (await anthropic.messages.countTokens({ model, messages })).input_tokens;
  found.anthropicUsage = message.usage;
  try {
    await anthropic.messages.create({ model: "no-such", messages, max_tokens: 1 });
  } catch (error) {
    found.anthropicError = [error.constructor.name, error.status, error.error.error.type];
  }
}

async function openaiExamples() {
  const completion = await openai.chat.completions.create({ model, messages, ...short });
  found.openai = completion.choices[0].message.content;
  let text = "";
  const chunks = await openai.chat.completions.create({ model, messages, ...short, stream: true });
  for await (const chunk of chunks) text += chunk.choices[0]?.delta?.content ?? "";
  found.openaiStream = text;
  const formatted = await openai.chat.completions.create({
    model,
    messages,
    max_tokens: 60,
    temperature: 0,
    response_format: { type: "json_schema", json_schema: { name: "country", schema, strict: true } },
  });
  found.openaiJson = JSON.parse(formatted.choices[0].message.content);
  const called = await openai.chat.completions.create({
    model,
    messages,
    tools: [{ type: "function", function: { ...tool, parameters: place } }],
    tool_choice: "required",
    parallel_tool_calls: false,
    max_tokens: 200,
    temperature: 0,
  });
  found.openaiTool = called.choices[0].message.tool_calls[0].function;
  const response = await openai.responses.create({ model, input: messages[0].content, max_output_tokens: 24, temperature: 0 });
  found.responses = response.output_text;
  const embedded = await openai.embeddings.create({ model, input: ["why is the sky blue?"] });
  found.openaiNorm = embedded.data[0].embedding.reduce((sum, x) => sum + x * x, 0);
  found.openaiModels = (await openai.models.list()).data.map((each) => each.id);
  try {
    await openai.chat.completions.create({ model, messages, temperature: 9 });
  } catch (error) {
    found.openaiError = [error.constructor.name, error.status, error.param];
  }
}

async function ollamaExamples() {
  const options = { temperature: 0, num_predict: 24 };
  const response = await ollama.chat({ model, messages, options });
  found.ollama = response.message.content;
  let text = "";
  for await (const part of await ollama.chat({ model, messages, options, stream: true })) text += part.message.content;
  found.ollamaStream = text;
  found.ollamaGenerate = (await ollama.generate({ model, prompt: messages[0].content, options })).response;
  const formatted = await ollama.chat({ model, messages, format: schema, options: { ...options, num_predict: 60 } });
  found.ollamaJson = JSON.parse(formatted.message.content);
  const tools = [{ type: "function", function: { ...tool, parameters: place } }];
  const called = await ollama.chat({ model, messages, tools, options });
  found.ollamaTools = { content: called.message.content, calls: called.message.tool_calls ?? [] };
  found.ollamaNorm = (await ollama.embed({ model, input: "why is the sky blue?" })).embeddings[0].reduce((s, x) => s + x * x, 0);
  found.ollamaModels = (await ollama.list()).models.map((each) => each.model);
  try {
    await ollama.chat({ model: "no-such", messages });
  } catch (error) {
    found.ollamaError = [error.name, error.status_code];
  }
}

await anthropicExamples();
await openaiExamples();
await ollamaExamples();
console.log(JSON.stringify(found));
