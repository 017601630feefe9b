// Pictures that were not drawn. What several have in common is said once.

import { button, make, say } from "./parts.js";

// Pictures that fail together do so within it.
const TOGETHER_MS = 300;

export class Failures {
  constructor(box) {
    this.box = box;
    this.errors = new Map();
  }

  add(job, error) {
    this.errors.set(job, error);
    this.#show();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => say(this.box.querySelector("p")?.textContent ?? error.message), TOGETHER_MS);
  }

  remove(job) {
    if (this.errors.delete(job)) this.#show();
  }

  #show() {
    const reasons = new Map();
    for (const [job, error] of this.errors) {
      // How long a busy server asks to wait differs from one request to the next.
      const reason = error.code === "busy" ? error.code : error.message;
      reasons.set(reason, [...(reasons.get(reason) ?? []), job]);
    }
    this.box.replaceChildren();
    for (const jobs of reasons.values()) {
      const { message } = this.errors.get(jobs.at(-1));
      for (const job of jobs) job.tell(jobs.length > 1 ? "Not drawn." : message);
      if (jobs.length > 1) this.box.append(this.#notice(message, jobs));
    }
  }

  #notice(message, jobs) {
    const again = () => {
      for (const job of jobs) job.again();
      jobs[0].buttons.firstChild.focus();
    };
    const remove = () => {
      for (const job of jobs) job.close();
    };
    const text = make("p", { textContent: `${jobs.length} pictures were not drawn. ${message}` });
    return make("div", { className: "notice" }, text, button("Try all again", again), button("Remove all", remove));
  }
}
