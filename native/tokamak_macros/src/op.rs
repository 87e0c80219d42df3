// SPDX-License-Identifier: Apache-2.0
//! `#[tokamak::op]`.

use crate::argument;
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, FnArg, Ident, ItemFn, LitInt, LitStr, PatType, Result, ReturnType, Token, Type};

/// As many arguments as `tokamak` decodes.
const MAX_ARITY: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Async,
    Eager,
    Blocking,
    Stream,
    Duplex,
}

/// What stands in `#[tokamak::op(…)]`.
pub struct Options {
    kind: Kind,
    limit: usize,
    name: Option<String>,
}

impl Parse for Options {
    fn parse(input: ParseStream) -> Result<Self> {
        let mut options = Self {
            kind: Kind::Async,
            limit: 0,
            name: None,
        };
        while !input.is_empty() {
            let word: Ident = input.parse()?;
            match word.to_string().as_str() {
                "eager" => options.set_kind(Kind::Eager, &word)?,
                "blocking" => options.set_kind(Kind::Blocking, &word)?,
                "stream" => options.set_kind(Kind::Stream, &word)?,
                "duplex" => options.set_kind(Kind::Duplex, &word)?,
                "limit" => options.limit = limit(input)?,
                "name" => {
                    input.parse::<Token![=]>()?;
                    options.name = Some(input.parse::<LitStr>()?.value());
                }
                _ => {
                    return Err(Error::new(
                        word.span(),
                        "expected eager, blocking, stream, duplex, limit = N or name = \"…\"",
                    ));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn set_kind(&mut self, kind: Kind, word: &Ident) -> Result<()> {
        if self.kind != Kind::Async {
            return Err(Error::new(word.span(), "an operation is of one kind"));
        }
        self.kind = kind;
        Ok(())
    }
}

fn limit(input: ParseStream) -> Result<usize> {
    input.parse::<Token![=]>()?;
    let number: LitInt = input.parse()?;
    match number.base10_parse()? {
        0 => Err(Error::new(number.span(), "a limit is at least 1")),
        limit => Ok(limit),
    }
}

/// The parameters of the function, by where they come from.
struct Parameters {
    /// The expressions to call the function with, in order.
    passed: Vec<Ident>,
    ctx: Option<Ident>,
    inbox: Option<(Ident, Type)>,
    outbox: Option<(Ident, Type)>,
    /// Those that come from Erlang.
    decoded: Vec<(Ident, Type)>,
}

impl Parameters {
    fn of(function: &ItemFn) -> Result<Self> {
        let mut this = Self {
            passed: Vec::new(),
            ctx: None,
            inbox: None,
            outbox: None,
            decoded: Vec::new(),
        };
        for (index, input) in function.sig.inputs.iter().enumerate() {
            let FnArg::Typed(PatType { ty, .. }) = input else {
                return Err(Error::new_spanned(
                    input,
                    "an operation is a function, not a method",
                ));
            };
            let name = format_ident!("argument_{index}");
            this.passed.push(name.clone());
            let is_second = match last_segment(ty).as_deref() {
                Some("Ctx") => this.ctx.replace(name).is_some(),
                Some("Inbox") => this.inbox.replace((name, (**ty).clone())).is_some(),
                Some("Outbox") => this.outbox.replace((name, (**ty).clone())).is_some(),
                _ => {
                    if let Some(refusal) = argument::refusal(ty) {
                        return Err(Error::new_spanned(ty, refusal));
                    }
                    this.decoded.push((name, (**ty).clone()));
                    false
                }
            };
            if is_second {
                return Err(Error::new_spanned(ty, "an operation has one of these"));
            }
        }
        if this.decoded.len() > MAX_ARITY {
            return Err(Error::new_spanned(
                &function.sig.inputs,
                "an operation takes at most eight arguments from Erlang",
            ));
        }
        Ok(this)
    }

    /// Statements that decode the arguments and make the context.
    fn prepare(&self) -> TokenStream {
        let arguments = self.decoded.iter().enumerate();
        let decode = arguments.map(|(index, (name, ty))| argument::decode(name, index, ty));
        let ctx = self
            .ctx
            .iter()
            .map(|name| quote! { let #name = call.ctx.get(); });
        quote! { #(#decode)* #(#ctx)* }
    }
}

/// Makes the operation beside the function.
pub fn expand(options: &Options, function: &ItemFn) -> Result<TokenStream> {
    check(options, function)?;
    let parameters = Parameters::of(function)?;
    check_boxes(options.kind, &parameters)?;
    let start = start(options.kind, function, &parameters)?;
    let eager = match options.kind {
        Kind::Eager => eager(function, &parameters),
        _ => quote! { ::std::option::Option::None },
    };
    let discover = match options.kind {
        Kind::Eager if may_discover(&function.sig.output) => discover(function, &parameters),
        _ => quote! { ::std::option::Option::None },
    };
    let name = options
        .name
        .clone()
        .unwrap_or_else(|| function.sig.ident.unraw().to_string());
    let kind = Ident::new(
        match options.kind {
            Kind::Async => "Async",
            Kind::Eager => "Eager",
            Kind::Blocking => "Blocking",
            Kind::Stream => "Stream",
            Kind::Duplex => "Duplex",
        },
        Span::call_site(),
    );
    let (arity, limit) = (parameters.decoded.len(), options.limit);
    Ok(quote! {
        #function

        const _: () = {
            #start

            ::tokamak::inventory::submit! {
                ::tokamak::operation::Operation {
                    name: #name,
                    arity: #arity,
                    kind: ::tokamak::operation::Kind::#kind,
                    limit: #limit,
                    start: start_operation,
                    eager: #eager,
                    discover: #discover,
                }
            }
        };
    })
}

fn check(options: &Options, function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let is_async = signature.asyncness.is_some();
    let wants_async = matches!(options.kind, Kind::Async | Kind::Eager | Kind::Duplex);
    if is_async != wants_async {
        let expected = match wants_async {
            true => "this kind of operation is an async fn",
            false => "this kind of operation is a fn, not an async fn",
        };
        return Err(Error::new_spanned(signature, expected));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &signature.generics,
            "an operation has no generic parameters",
        ));
    }
    Ok(())
}

fn check_boxes(kind: Kind, parameters: &Parameters) -> Result<()> {
    let boxes = [&parameters.inbox, &parameters.outbox];
    match boxes.into_iter().flatten().next() {
        Some((_, ty)) if kind != Kind::Duplex => Err(Error::new_spanned(
            ty,
            "an Inbox and an Outbox are for a duplex operation: #[tokamak::op(duplex)]",
        )),
        _ => Ok(()),
    }
}

/// What a function returns.
enum Output {
    Unit,
    Value,
    Result,
    UnitResult,
}

impl Output {
    fn of(output: &ReturnType) -> Self {
        match output {
            ReturnType::Default => Self::Unit,
            ReturnType::Type(_, ty) if is_nothing(ty) => Self::Unit,
            ReturnType::Type(_, ty) if last_segment(ty).as_deref() == Some("Result") => {
                match is_result_of_nothing(ty) {
                    true => Self::UnitResult,
                    false => Self::Result,
                }
            }
            ReturnType::Type(..) => Self::Value,
        }
    }

    /// What turns the function's value into a reply. A type that cannot be one is told at `span`.
    fn reply(&self, span: Span) -> TokenStream {
        match self {
            Self::Unit => quote_spanned! { span=> ::tokamak::reply::of_unit },
            Self::Value => quote_spanned! { span=> ::tokamak::reply::of_value },
            Self::Result => quote_spanned! { span=> ::tokamak::reply::of_result },
            Self::UnitResult => quote_spanned! { span=> ::tokamak::reply::of_unit_result },
        }
    }

    /// What turns the function's value into a term at once.
    fn encode(&self, span: Span) -> TokenStream {
        match self {
            Self::Unit => quote_spanned! { span=> ::tokamak::reply::encode_unit },
            Self::Value => quote_spanned! { span=> ::tokamak::reply::encode_ok },
            Self::Result => quote_spanned! { span=> ::tokamak::reply::encode_result },
            Self::UnitResult => quote_spanned! { span=> ::tokamak::reply::encode_unit_result },
        }
    }
}

fn start(kind: Kind, function: &ItemFn, parameters: &Parameters) -> Result<TokenStream> {
    let prepare = parameters.prepare();
    let (name, passed) = (&function.sig.ident, &parameters.passed);
    let (output, span) = (&function.sig.output, span(&function.sig.output));
    let reply = Output::of(output).reply(span);
    let started = match kind {
        Kind::Async | Kind::Eager => quote_spanned! { span=>
            ::tokamak::operation::Started::Future(::std::boxed::Box::pin(async move {
                #reply(#name(#(#passed),*).await)
            }))
        },
        Kind::Blocking => quote_spanned! { span=>
            ::tokamak::operation::Started::Blocking(::std::boxed::Box::new(move || {
                #reply(#name(#(#passed),*))
            }))
        },
        Kind::Stream => {
            let item = match items_are_results(output) {
                true => Output::Result.reply(span),
                false => Output::Value.reply(span),
            };
            quote_spanned! { span=>
                ::tokamak::operation::Started::Stream(::std::boxed::Box::pin(
                    ::tokamak::operation::map_items(#name(#(#passed),*), #item)
                ))
            }
        }
        Kind::Duplex => duplex(function, parameters, &reply)?,
    };
    Ok(quote! {
        fn start_operation(
            call: &::tokamak::operation::Call,
        ) -> ::std::result::Result<
            ::tokamak::operation::Started,
            ::tokamak::operation::BadArgument,
        > {
            #prepare
            ::std::result::Result::Ok(#started)
        }
    })
}

fn duplex(function: &ItemFn, parameters: &Parameters, reply: &TokenStream) -> Result<TokenStream> {
    let (Some((inbox, inbox_type)), Some((outbox, outbox_type))) =
        (&parameters.inbox, &parameters.outbox)
    else {
        return Err(Error::new_spanned(
            &function.sig,
            "a duplex operation has an Inbox<T> and an Outbox<T>",
        ));
    };
    let (name, passed) = (&function.sig.ident, &parameters.passed);
    let expected = argument::text(inbox_type);
    Ok(quote! {{
        let (#inbox, port): (#inbox_type, _) = ::tokamak::stream::Inbox::new(call.inbox, #expected);
        let #outbox: #outbox_type = call.outbox()?;
        let future = ::std::boxed::Box::pin(async move { #reply(#name(#(#passed),*).await) });
        ::tokamak::operation::Started::Duplex(future, port)
    }})
}

fn eager(function: &ItemFn, parameters: &Parameters) -> TokenStream {
    let prepare = parameters.prepare();
    let (name, passed) = (&function.sig.ident, &parameters.passed);
    let (output, span) = (Output::of(&function.sig.output), span(&function.sig.output));
    let (encode, reply) = (output.encode(span), output.reply(span));
    quote! {{
        fn poll_operation<'a>(
            call: &::tokamak::operation::Call<'a, '_>,
        ) -> ::std::result::Result<
            ::tokamak::operation::Eager<'a>,
            ::tokamak::operation::BadArgument,
        > {
            #prepare
            let future = #name(#(#passed),*);
            ::std::result::Result::Ok(
                ::tokamak::operation::poll_once(call.env, future, #encode, #reply)
            )
        }
        ::std::option::Option::Some(poll_operation)
    }}
}

fn discover(function: &ItemFn, parameters: &Parameters) -> TokenStream {
    let prepare = parameters.prepare();
    let (name, passed) = (&function.sig.ident, &parameters.passed);
    let (output, span) = (Output::of(&function.sig.output), span(&function.sig.output));
    let (encode, reply) = (output.encode(span), output.reply(span));
    quote! {{
        fn poll_discovery<'a>(
            call: &::tokamak::operation::Call<'a, '_>,
        ) -> ::std::result::Result<
            ::tokamak::discovery::Polled<'a>,
            ::tokamak::operation::BadArgument,
        > {
            #[allow(unused_imports)]
            use ::tokamak::discovery::NeedsTerms as _;
            #prepare
            let future = #name(#(#passed),*);
            ::std::result::Result::Ok(::tokamak::discovery::poll_once(
                call.env,
                future,
                |output| ::tokamak::discovery::Returned(output).plain(),
                #encode,
                #reply,
            ))
        }
        ::std::option::Option::Some(poll_discovery)
    }}
}

/// Where the type of what is returned stands.
fn span(output: &ReturnType) -> Span {
    match output {
        ReturnType::Default => Span::call_site(),
        ReturnType::Type(_, ty) => argument::at(ty),
    }
}

/// Whether `(Result, Vec<Child>)` is returned, or a `Result` of it: what a pool's handler returns.
fn may_discover(output: &ReturnType) -> bool {
    let ReturnType::Type(_, ty) = output else {
        return false;
    };
    let value = match last_segment(ty).as_deref() {
        Some("Result") => first_argument(ty),
        _ => Some(&**ty),
    };
    let Some(Type::Tuple(pair)) = value else {
        return false;
    };
    pair.elems.len() == 2 && pair.elems.last().and_then(last_segment).as_deref() == Some("Vec")
}

/// Whether a type is `Result<(), …>`, under whatever path.
fn is_result_of_nothing(ty: &Type) -> bool {
    first_argument(ty).is_some_and(is_nothing)
}

/// Whether a type is `()`.
fn is_nothing(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// `T` of `Path<T, …>`, whatever lifetimes are before it.
pub fn first_argument(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else {
        return None;
    };
    match &path.path.segments.last()?.arguments {
        syn::PathArguments::AngleBracketed(arguments) => {
            arguments.args.iter().find_map(|argument| match argument {
                syn::GenericArgument::Type(ty) => Some(ty),
                _ => None,
            })
        }
        _ => None,
    }
}

/// The name of a type without its path and parameters.
pub fn last_segment(ty: &Type) -> Option<String> {
    match ty {
        Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}

/// Whether a stream of `Result`s is returned: `impl Stream<Item = Result<…>>`, a boxed `dyn Stream` of them, or a
/// `BoxStream<Result<…>>`.
fn items_are_results(output: &ReturnType) -> bool {
    match output {
        ReturnType::Default => false,
        ReturnType::Type(_, ty) => streams_results(ty),
    }
}

fn streams_results(ty: &Type) -> bool {
    let is_result = |ty: &Type| last_segment(ty).as_deref() == Some("Result");
    match ty {
        Type::ImplTrait(syn::TypeImplTrait { bounds, .. })
        | Type::TraitObject(syn::TypeTraitObject { bounds, .. }) => {
            bounds.iter().filter_map(item_of).any(is_result)
        }
        _ => match (last_segment(ty).as_deref(), first_argument(ty)) {
            (Some("Pin" | "Box"), Some(inner)) => streams_results(inner),
            (Some("BoxStream"), Some(item)) => is_result(item),
            _ => false,
        },
    }
}

/// `T` of `Stream<Item = T>`.
fn item_of(bound: &syn::TypeParamBound) -> Option<&Type> {
    let syn::TypeParamBound::Trait(bound) = bound else {
        return None;
    };
    let syn::PathArguments::AngleBracketed(arguments) = &bound.path.segments.last()?.arguments
    else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        syn::GenericArgument::AssocType(item) if item.ident == "Item" => Some(&item.ty),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    fn expanded(options: Options, function: &ItemFn) -> String {
        match expand(&options, function) {
            Ok(tokens) => tokens.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    fn refusal(text: &str) -> String {
        match syn::parse_str::<Options>(text) {
            Ok(_) => "accepted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        assert!(refusal("eager, blocking").contains("of one kind"));
        assert!(refusal("limit = 0").contains("at least 1"));
        assert!(refusal("fast").contains("expected eager"));
        assert_eq!(refusal("blocking, limit = 4, name = \"read\","), "accepted");
    }

    #[test]
    fn functions_of_the_wrong_form_are_refused() {
        let not_async: ItemFn = parse_quote! { fn f() {} };
        assert!(expanded(parse_quote!(), &not_async).contains("is an async fn"));
        let is_async: ItemFn = parse_quote! { async fn f() {} };
        assert!(expanded(parse_quote!(blocking), &is_async).contains("not an async fn"));
        let generic: ItemFn = parse_quote! { async fn f<T>(t: T) {} };
        assert!(expanded(parse_quote!(), &generic).contains("no generic"));
        let method: ItemFn = parse_quote! { async fn f(&self) {} };
        assert!(expanded(parse_quote!(), &method).contains("not a method"));
        let boxes: ItemFn = parse_quote! { async fn f(a: Inbox<u8>) {} };
        assert!(expanded(parse_quote!(), &boxes).contains("for a duplex operation"));
        let contexts: ItemFn = parse_quote! { async fn f(a: Ctx, b: Ctx) {} };
        assert!(expanded(parse_quote!(), &contexts).contains("has one of these"));
        let borrowed: ItemFn = parse_quote! { async fn f(a: &str) {} };
        assert!(expanded(parse_quote!(), &borrowed).contains("owns its arguments"));
        let no_boxes: ItemFn = parse_quote! { async fn f(a: u8) {} };
        assert!(expanded(parse_quote!(duplex), &no_boxes).contains("an Inbox<T> and an Outbox<T>"));
        let many: ItemFn = parse_quote! {
            async fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8) {}
        };
        assert!(expanded(parse_quote!(), &many).contains("at most eight"));
    }

    #[test]
    fn what_does_not_come_from_erlang_does_not_count() {
        let duplex: ItemFn = parse_quote! {
            async fn f(ctx: Ctx, input: Inbox<u8>, output: Outbox<u8>, a: u8, b: String) {}
        };
        assert!(expanded(parse_quote!(duplex), &duplex).contains("arity : 2usize"));
    }

    #[test]
    fn a_name_and_a_limit_are_taken_over() {
        let function: ItemFn = parse_quote! { fn f() -> u8 { 0 } };
        let text = expanded(parse_quote!(blocking, limit = 3, name = "other"), &function);
        assert!(text.contains("name : \"other\"") && text.contains("limit : 3usize"));
        let raw: ItemFn = parse_quote! { async fn r#type() {} };
        assert!(expanded(parse_quote!(), &raw).contains("name : \"type\""));
    }

    #[test]
    fn results_are_told_from_values_and_from_nothing() {
        let replies = [
            (parse_quote! { async fn f() {} }, "of_unit"),
            (parse_quote! { async fn f() -> () {} }, "of_unit"),
            (parse_quote! { async fn f() -> u8 { 0 } }, "of_value"),
            (
                parse_quote! { async fn f() -> Result<u8, E> { Ok(0) } },
                "of_result",
            ),
            (
                parse_quote! { async fn f() -> std::io::Result<()> { Ok(()) } },
                "of_unit_result",
            ),
        ];
        for (function, reply) in replies {
            let text = expanded(parse_quote!(), &function);
            assert!(text.contains(reply), "{reply} is not in {text}");
        }
    }

    #[test]
    fn what_may_handle_items_of_a_pool_has_an_entry_for_it() {
        let has_entry = |function: ItemFn| {
            expanded(parse_quote!(eager), &function).contains("fn poll_discovery")
        };
        assert!(has_entry(
            parse_quote! { async fn f(a: u8) -> (u8, Vec<u8>) { todo() } }
        ));
        assert!(has_entry(
            parse_quote! { async fn f(a: u8) -> io::Result<(A, Vec<B>)> { todo() } }
        ));
        assert!(!has_entry(
            parse_quote! { async fn f(a: u8) -> (u8, u8) { todo() } }
        ));
        assert!(!has_entry(
            parse_quote! { async fn f(a: u8) -> u8 { todo() } }
        ));
    }

    #[test]
    fn streams_of_results_are_told_from_streams_of_values() {
        let values: ItemFn = parse_quote! { fn f() -> impl Stream<Item = u8> { todo() } };
        assert!(expanded(parse_quote!(stream), &values).contains("of_value"));
        let results: ItemFn = parse_quote! {
            fn f() -> impl Stream<Item = Result<u8, E>> + Send { todo() }
        };
        assert!(expanded(parse_quote!(stream), &results).contains("of_result"));
        let boxed: [ItemFn; 2] = [
            parse_quote! { fn f() -> Pin<Box<dyn Stream<Item = io::Result<u8>> + Send>> { todo() } },
            parse_quote! { fn f() -> BoxStream<'static, Result<u8, E>> { todo() } },
        ];
        for function in boxed {
            assert!(expanded(parse_quote!(stream), &function).contains("of_result"));
        }
        let boxed_values: ItemFn = parse_quote! { fn f() -> BoxStream<'static, u8> { todo() } };
        assert!(expanded(parse_quote!(stream), &boxed_values).contains("of_value"));
    }
}
