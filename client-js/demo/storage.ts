/** Small texts that outlive the page. A browser that refuses storage forgets them, and nothing else changes. */

export interface Shelf {
  read(key: string): string | null;
  /** Null removes. */
  write(key: string, value: string | null): void;
}

/** That of the tab. */
export const tab = shelf(() => sessionStorage);
/** That of the browser. */
export const browser = shelf(() => localStorage);

function shelf(area: () => Storage): Shelf {
  return {
    read: (key) => {
      try {
        return area().getItem(`rejoin:${key}`);
      } catch {
        return null;
      }
    },
    write: (key, value) => {
      try {
        if (value === null) area().removeItem(`rejoin:${key}`);
        else area().setItem(`rejoin:${key}`, value);
      } catch {
        // Storage is a comfort here, not a need.
      }
    },
  };
}
