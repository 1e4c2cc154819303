import js from '@eslint/js';
import globals from 'globals';
import ts from 'typescript-eslint';

export default ts.config(
  { ignores: ['dist/'] },
  js.configs.recommended,
  ...ts.configs.strict,
  { files: ['*.js', '*.mjs'], languageOptions: { globals: globals.node } },
  {
    files: ['src/**/*.ts'],
    languageOptions: { globals: globals.browser },
    rules: {
      eqeqeq: 'error',
      // What people type is text, never markup.
      'no-restricted-properties': [
        'error',
        { property: 'innerHTML', message: 'use text nodes (see src/dom.ts)' },
        { property: 'outerHTML', message: 'use text nodes (see src/dom.ts)' },
        { property: 'insertAdjacentHTML', message: 'use text nodes (see src/dom.ts)' },
      ],
    },
  },
);
