// Tokenizers, as nanogpt2/tokens and nanogpt2/tokens/bpe have them: text to token numbers and back.

// What GPT-2's pattern cuts a text into; white space as Python's regex knows it.
const SPACE = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORDS = new RegExp(
  `'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^${SPACE}\\p{L}\\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]`, "gu");

/** Return `found`; an Error where it is none of `allowed`: what a page does not know it takes for
 *  nothing else. */
function oneOf(name, found, allowed) {
  if (allowed.includes(found)) return found;
  throw new Error(`${name}: found ${JSON.stringify(found)}; this page knows ${allowed.join(", ")}`);
}

/** The one form of every text that enters: nanogpt2/tokens/normal.py. */
const normalise = (text) =>
  text.replace(/^\ufeff+/, "").replace(/\r\n?|[\x85\u2028\u2029]/g, "\n").normalize("NFC");

class CharTokenizer {
  constructor({ code_points }) {
    this.texts = code_points.map((point) => String.fromCodePoint(point));
    this.numbers = new Map(this.texts.map((text, number) => [text, number]));
  }

  encode(text) {
    return Array.from(text, (character) => {
      const number = this.numbers.get(character);
      if (number === undefined) throw new UnknownCharacter(character, this.texts);
      return number;
    });
  }

  /** Return a function from the next token to the text that it completes. */
  stream() {
    return (token) => this.texts[token];
  }
}

class UnknownCharacter extends Error {
  constructor(character, texts) {
    const shown = texts.filter((text) => text.trim()).join(" ");
    super(`The model has never seen ${JSON.stringify(character)}. It knows line breaks, spaces and ${shown}`);
  }
}

class ByteTokenizer {
  constructor() {
    this.bytes = Array.from({ length: 256 }, (_, byte) => [byte]);
  }

  encode(text) {
    return Array.from(new TextEncoder().encode(text));
  }

  stream() {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    return (token) => decoder.decode(Uint8Array.from(this.bytes[token]), { stream: true });
  }
}

/** Byte pairs; `tokens` are the bytes of each, `ranked` the numbers of those that a text can have,
 *  in the order in which they are made. */
class BytePairTokenizer extends ByteTokenizer {
  constructor({ tokens, ranked }) {
    super();
    this.bytes = tokens.map((token) => Array.from(atob(token), (byte) => byte.charCodeAt(0)));
    const keys = this.bytes.map((bytes) => String.fromCharCode(...bytes));
    this.ranks = new Map(ranked.map((number, rank) => [keys[number], rank]));
    this.ranked = ranked;
  }

  encode(text) {
    return (text.match(WORDS) ?? []).flatMap((word) => this.merge(word));
  }

  /** Merge neighbours of a word, those first that were first made. */
  merge(word) {
    const parts = Array.from(new TextEncoder().encode(word), (byte) => String.fromCharCode(byte));
    const rank = (at) => this.ranks.get(parts[at] + parts[at + 1]) ?? Infinity;
    for (;;) {
      let best = -1, least = Infinity;
      for (let at = 0; at + 1 < parts.length; at++) {
        const found = rank(at);
        if (found < least) [best, least] = [at, found];
      }
      if (best < 0) return parts.map((part) => this.ranked[this.ranks.get(part)]);
      parts.splice(best, 2, parts[best] + parts[best + 1]);
    }
  }
}

const TOKENIZERS = { char: CharTokenizer, byte: ByteTokenizer, bpe: BytePairTokenizer };

function openTokenizer(description) {
  const name = oneOf("tokenizer", description.name, Object.keys(TOKENIZERS));
  return new TOKENIZERS[name](description);
}
