// Lets the search work from file://, where a browser starts no worker: what would be one is a frame of
// the page instead. Material for MkDocs asks for `new Worker(url)` and speaks to it by messages.
"use strict";

if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      // what a worker has and a window has not, or has for another purpose
      inside.postMessage = (data) => this.tell(structuredClone(data));
      inside.importScripts = async (...urls) => {
        for (const each of urls) await load(inside, each);
      };
      this.ready = load(inside, url);
    }

    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.ready.then(() =>
        inside.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) })),
      );
    }

    tell(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      this.onmessage?.(event);
    }

    terminate() {
      this.frame.remove();
    }
  };
}

// Resolves when the script at `url` has run in the window `inside`.
function load(inside, url) {
  return new Promise((done, failed) => {
    const script = inside.document.createElement("script");
    script.src = new URL(url, document.baseURI);
    script.onload = done;
    script.onerror = () => failed(new Error(`${url} cannot be read`));
    inside.document.body.append(script);
  });
}
